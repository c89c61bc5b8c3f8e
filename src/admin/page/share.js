// Sharing a device: opens the window, shows its code as QR and as digits, and how long it stays open.

import { ask, problem } from "./app.js";
import { refresh } from "./live.js";
import { encodeQR } from "./qr/qr.js";

const $ = selector => document.querySelector(selector);
const form = $("#share-form");
const SVG = "http://www.w3.org/2000/svg";

form.addEventListener("submit", async event => {
  event.preventDefault();
  form.querySelector(".problem")?.remove();
  const button = form.querySelector("button.primary");
  button.disabled = true;
  try {
    const seconds = Number(form.elements.seconds.value);
    const answer = await ask("POST", `/v1/nodes/${form.dataset.node}/action`, { action: "share", seconds });
    show(await answer.json());
    refresh();
  } catch (error) {
    form.append(problem(error));
  }
  button.disabled = false;
});

function show({ manual_code, qr_payload, expires_at }) {
  $("#shared-qr").replaceChildren(draw(qr_payload));
  $("#shared-code").textContent = manual_code.replace(/^(\d{4})(\d{3})(\d{4})$/, "$1-$2-$3");
  $("#shared-left").dataset.until = expires_at;
  form.hidden = true;
  $("#shared").hidden = false;
}

/** The next time it asks again. */
$("#share").addEventListener("close", () => {
  form.hidden = false;
  $("#shared").hidden = true;
});

/** One path of unit squares. */
function draw(text) {
  const rows = encodeQR(text, "raw", { ecc: "medium", border: 4 });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${rows.length} ${rows.length}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "QR code with the setup code");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", rows.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ""))).join(""));
  svg.append(path);
  return svg;
}
