// Adding a device: sends the code, lights the steps as they come, tells what came of it. Scanning is in scan.js.

import { ask, draw, element, lines, problem, prose } from "./app.js";
import { offer } from "./scan.js";

const $ = selector => document.querySelector(selector);
const form = $("#add");
const WAIT_FOR_CLOUD = 20000;
/** A device that could not join waits so long for other credentials: time to go to the hub and set them. */
const WAIT_FOR_NETWORK = 180000;
/** The hub is asked about a code when nobody has typed for so long. */
const TYPED = 300;

const code = form.elements.setup_code;
offer(text => {
  code.value = text;
  code.focus();
  look();
});
// Somebody may have typed already.
look();

let typing;
code.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(look, TYPED);
});

/** Shows what is in the way of the device with this code; the hub understands codes. */
async function look() {
  const asked = code.value;
  let told = "";
  try {
    if (asked.trim()) told = await (await ask("POST", "/add/in-the-way", { setup_code: asked })).text();
  } catch {
    // Adding it says what is wrong.
  }
  // Somebody may have typed on.
  if (asked === code.value) draw($("#in-the-way"), told);
}

function request() {
  const fields = form.elements;
  const text = name => fields[name].value.trim() || undefined;
  const terms = text("terms")?.split(":").map(Number);
  return {
    setup_code: code.value,
    name: text("name"),
    room_id: text("room_id"),
    address: text("address"),
    no_bind: fields.no_bind.checked,
    wait_bind_ms: WAIT_FOR_CLOUD,
    network: fields.network && text("network"),
    wait_network_ms: WAIT_FOR_NETWORK,
    accept_terms: terms && { version: terms[0], bits: terms[1] },
    attestation_override: text("why") && { who: "", why: text("why") },
  };
}

/** Sends what the form says; app.js calls it. */
export async function add() {
  const button = form.querySelector("button.primary");
  $("#outcome").replaceChildren();
  $("#notes").replaceChildren();
  $("#waits").replaceChildren();
  document.querySelectorAll(".steps li").forEach(step => {
    step.className = "";
    step.hidden = step.dataset.step === "network";
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
  if (step) step.hidden = false;
  $("#waits").replaceChildren();
  if (line.event === "step-started") {
    step?.classList.add("now");
    if (step) say(`${capital(step.querySelector("span").textContent)}…`);
  } else if (line.event === "step-finished") {
    step?.classList.remove("now");
    step?.classList.add("done");
    if (step) step.querySelector("small").textContent = duration(line.duration_ms);
  } else if (line.event === "waiting") {
    waits(line);
  } else if (line.event === "note") {
    $("#notes").append(element("li", { textContent: line.message }));
  } else if (line.event === "bind") {
    say("Telling the cloud…");
  }
}

/** The device waits for a person: what is in the way, what to do, how much time there is. */
function waits({ code: word, message, hint, left_ms }) {
  const left = element("span");
  left.dataset.until = new Date(Date.now() + left_ms).toISOString();
  const box = element("div", { className: "hint" }, element("p", {}, element("strong", { textContent: capital(message) })));
  box.append(element("p", {}, ...prose(hint)), element("p", { className: "quiet" }, "It goes on by itself after that. Time left: ", left));
  box.append(element("p", { className: "codes" }, element("code", { textContent: `network · ${word}` })));
  $("#waits").replaceChildren(box);
}

const capital = text => text[0].toUpperCase() + text.slice(1);
const duration = ms => (ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`);

function succeeded({ node, bind, timings_ms, replaces }) {
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
  if (replaces) slot("text").append(` It was node ${replaces} before; that one has ended.`);
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
    look();
    again();
  });
  $("#outcome").append(card);
  $("#outcome").focus();
}

function failed(failure) {
  const step = document.querySelector(`.steps [data-step="${failure.step}"]`);
  document.querySelectorAll(".steps .now").forEach(it => it.classList.remove("now"));
  $("#waits").replaceChildren();
  if (step) Object.assign(step, { className: "failed", hidden: false });
  say(step ? `It ended while ${step.querySelector("span").textContent}.` : "It did not begin.");
  const box = problem(failure);
  const row = element("div", { className: "row" });
  const retry = element("button", { className: "button primary", textContent: "Try again" });
  retry.addEventListener("click", add);
  const isTerms = failure.code === "terms-required";
  const change = element("button", { className: "button", textContent: isTerms ? "Say which were accepted" : "Change the code" });
  change.addEventListener("click", () => again(isTerms ? form.elements.terms : code));
  row.append(retry, change);
  if (failure.node) row.append(element("a", { className: "button", href: `/nodes/${failure.node.node_id}`, textContent: `Show ${failure.node.name}` }));
  $("#outcome").append(box, row);
  $("#outcome").focus();
}

function again(field = code) {
  $("#progress").hidden = true;
  $("#outcome").replaceChildren();
  form.hidden = false;
  for (const closed of form.querySelectorAll("details")) closed.open ||= closed.contains(field);
  field.focus();
}
