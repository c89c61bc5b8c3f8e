// Adding a device: sends the code, lights the steps as they come, tells what came of it. Scanning is in scan.js.

import { ask, element, lines, problem } from "./app.js";
import { offer } from "./scan.js";

const $ = selector => document.querySelector(selector);
const form = $("#add");
const WAIT_FOR_CLOUD = 20000;

offer(code => {
  form.elements.setup_code.value = code;
  form.elements.setup_code.focus();
});
if (new URLSearchParams(location.search).get("code")) form.elements.setup_code.value = new URLSearchParams(location.search).get("code");

form.addEventListener("submit", event => {
  event.preventDefault();
  add();
});

function request() {
  const fields = form.elements;
  const text = name => fields[name].value.trim() || undefined;
  const code = fields.setup_code.value.trim();
  return {
    // An 11- or 21-digit code is printed in groups.
    setup_code: /^mt:/i.test(code) ? code : code.replace(/[\s-]/g, ""),
    name: text("name"),
    room_id: text("room_id"),
    address: text("address"),
    no_bind: fields.no_bind.checked,
    wait_bind_ms: WAIT_FOR_CLOUD,
    attestation_override: text("why") && { who: "", why: text("why") },
  };
}

async function add() {
  const button = form.querySelector("button.primary");
  $("#outcome").replaceChildren();
  $("#notes").replaceChildren();
  document.querySelectorAll(".steps li").forEach(step => {
    step.className = "";
    step.querySelector("small").textContent = "";
  });
  button.disabled = true;
  form.hidden = true;
  $("#progress").hidden = false;
  $("#progress-title").focus();
  say("Starting…");
  let result;
  try {
    for await (const line of lines(await ask("POST", "/v1/commission", request()))) {
      if (line.event) progress(line);
      else result = line;
    }
    result ??= { code: "connection-lost", message: "The connection was lost on the way.", hint: "The hub goes on by itself; the log tells how it ends. The same code again joins that attempt." };
  } catch (error) {
    result = error.code ? error : { code: "connection-lost", message: "The connection was lost on the way.", hint: "The hub goes on by itself; the log tells how it ends. The same code again joins that attempt." };
  }
  button.disabled = false;
  if (result.outcome === "commissioned") succeeded(result);
  else failed(result);
}

function say(text) {
  $("#now").textContent = text;
}

function progress(line) {
  const step = line.step && document.querySelector(`.steps [data-step="${line.step}"]`);
  // Nothing tells of a step that takes no time.
  for (let before = step?.previousElementSibling; before; before = before.previousElementSibling) before.className = "done";
  if (line.event === "step-started") {
    step?.classList.add("now");
    if (step) say(`${capital(step.querySelector("span").textContent)}…`);
  } else if (line.event === "step-finished") {
    step?.classList.remove("now");
    step?.classList.add("done");
    if (step) step.querySelector("small").textContent = duration(line.duration_ms);
  } else if (line.event === "note") {
    $("#notes").append(element("li", { textContent: line.message }));
  } else if (line.event === "bind") {
    say("Telling the cloud…");
  }
}

const capital = text => text[0].toUpperCase() + text.slice(1);
const duration = ms => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

function succeeded({ node, bind, timings_ms }) {
  $("#progress").hidden = true;
  const card = $("#added").content.cloneNode(true);
  const slot = name => card.querySelector(`[data-slot="${name}"]`);
  const cloud = {
    bound: "The cloud knows it.",
    pending: "The cloud will be told as soon as it answers.",
    rejected: `The cloud refuses it: ${bind.message}`,
    "not-eligible": `It stays local: ${bind.message}`,
    disabled: "",
  };
  slot("title").textContent = `${node.name} is here`;
  slot("text").textContent = `${node.vendor_name} ${node.product_name}, node ${node.node_id}, after ${duration(timings_ms.total)}. ${cloud[bind.state] ?? ""}`;
  slot("link").href = `/nodes/${node.node_id}`;
  slot("identify").addEventListener("click", async event => {
    event.target.disabled = true;
    try {
      await ask("POST", `/v1/nodes/${node.node_id}/action`, { action: "identify", seconds: 15 });
    } catch (error) {
      $("#outcome").append(problem(error));
    }
    event.target.disabled = false;
  });
  slot("again").addEventListener("click", () => {
    form.reset();
    again();
  });
  $("#outcome").append(card);
  $("#outcome").focus();
}

function failed(failure) {
  const step = document.querySelector(`.steps [data-step="${failure.step}"]`);
  step?.classList.remove("now");
  step?.classList.add("failed");
  say(step ? `It ended while ${step.querySelector("span").textContent}.` : "It did not begin.");
  const box = problem(failure);
  const row = element("div", { className: "row" });
  const retry = element("button", { className: "button primary", textContent: "Try again" });
  retry.addEventListener("click", add);
  const change = element("button", { className: "button", textContent: "Change the code" });
  change.addEventListener("click", again);
  row.append(retry, change);
  if (failure.node) row.append(element("a", { className: "button", href: `/nodes/${failure.node.node_id}`, textContent: `Show ${failure.node.name}` }));
  $("#outcome").append(box, row);
  $("#outcome").focus();
}

function again() {
  $("#progress").hidden = true;
  $("#outcome").replaceChildren();
  form.hidden = false;
  form.elements.setup_code.focus();
}
