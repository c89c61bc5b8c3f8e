// What every view needs: forms that act, dialogs, searching, and what keeps a view fresh (live.js). No view depends on it to be
// looked at. Text of others only ever becomes text: nothing here writes markup.

import { follow, refresh } from "./live.js";

const $ = (selector, root = document) => root.querySelector(selector);
document.documentElement.classList.add("script");

/** Asks the API; throws what it refuses: `{ code, message, hint }`. */
export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw { code: "hub-not-reachable", message: "The hub does not answer.", hint: "Is this device still on the same network?" };
  }
  if (answer.status === 401) {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    throw { code: "log-in-needed", message: "You are logged out.", hint: "Log in again." };
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  try {
    return await answer.json();
  } catch {
    return { code: `http-${answer.status}`, message: `The hub answered ${answer.status}.`, hint: "See the log." };
  }
}

/** An element with text and children. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Puts what the hub has drawn into its place. */
export function draw(place, drawn) {
  place.replaceChildren(...new DOMParser().parseFromString(drawn, "text/html").body.childNodes);
}

/** A failure as people read it: what happened, what to do, the words to search for. */
export function problem({ step, code, message, hint, findings }) {
  const box = element("div", { className: "problem" }, element("p", {}, element("strong", { textContent: message })));
  box.setAttribute("role", "alert");
  for (const finding of findings ?? []) box.append(element("p", { textContent: `${finding.message} (${finding.code})` }));
  if (hint) box.append(element("p", {}, ...prose(hint)));
  box.append(element("p", { className: "codes" }, element("code", { textContent: step ? `${step} · ${code}` : code })));
  return box;
}

/** A sentence in which commands stand between backquotes; it begins with a capital, and a command as it is typed. */
export function prose(text) {
  return (text.charAt(0).toUpperCase() + text.slice(1)).split("`").map((part, place) => (place % 2 ? element("code", { textContent: part }) : part));
}

/** A sentence at the edge that goes away by itself. */
export function toast(text) {
  const said = element("p", { textContent: text });
  $("#toasts").append(said);
  setTimeout(() => said.remove(), 6000);
}

/** The body of a form: what it always says, and its fields, each in its type. */
function bodyOf(form) {
  if (form.dataset.body === undefined && !form.elements.length) return undefined;
  const body = JSON.parse(form.dataset.body ?? "null");
  if (body === null) return undefined;
  for (const field of form.elements) {
    if (!field.name) continue;
    body[field.name] = field.type === "checkbox" ? field.checked : field.value;
  }
  return body;
}

async function act(form) {
  const [method, path] = form.dataset.action.split(" ");
  form.querySelector(".problem")?.remove();
  const buttons = form.querySelectorAll("button");
  buttons.forEach(button => (button.disabled = true));
  form.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(method, path, bodyOf(form));
    const told = await answer.json().catch(() => ({}));
    // A removal that goes on later says so.
    const unfinished = told.record_deleted === false;
    const failed = told.device_removed === false && !told.record_deleted;
    form.closest("dialog")?.close();
    toast(unfinished || failed ? told.message : form.dataset.done);
    if (form.dataset.then && !unfinished) location.assign(form.dataset.then);
    else await refresh();
  } catch (error) {
    showProblem(form, error);
  } finally {
    buttons.forEach(button => (button.disabled = false));
    form.removeAttribute("aria-busy");
  }
}

/** In a dialog within it; else below what the form stands in. */
function showProblem(form, error) {
  if (form.closest("dialog")) return form.append(problem(error));
  const place = form.closest(".actions, .banner, li") ?? form;
  place.parentElement.querySelector(":scope > .problem")?.remove();
  const box = problem(error);
  if (place.matches("li")) place.append(box);
  else place.after(box);
}

document.addEventListener("submit", event => {
  const form = event.target;
  if (form.dataset.action) {
    event.preventDefault();
    act(form);
  } else if (form.dataset.loads) {
    event.preventDefault();
    load($(`#${form.dataset.loads}`));
  } else if ("filters" in form.dataset) {
    event.preventDefault();
  } else if (form.id === "add") {
    // However early: a browser would put the code into the address.
    event.preventDefault();
    import("./add.js").then(({ add }) => add());
  }
});

document.addEventListener("click", event => {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.opens);
    dialog.querySelectorAll(".problem").forEach(box => box.remove());
    dialog.showModal();
  }
  if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  // Beside a dialog.
  if (event.target.matches("dialog")) event.target.close();
});

/** A part that takes the hub a while: it is fetched after the view. */
async function load(place) {
  place.setAttribute("aria-busy", "true");
  place.classList.add("busy");
  try {
    draw(place, await (await ask("GET", place.dataset.load)).text());
  } catch (error) {
    place.prepend(problem(error));
  }
  place.removeAttribute("aria-busy");
  place.classList.remove("busy");
}

/** Shows the rows that fit what is typed, and keeps the address in step, so that it can be kept and shared. */
export function filter() {
  const form = $("[data-filters]");
  if (!form) return;
  const words = form.q.value.toLowerCase().split(/\s+/).filter(Boolean);
  const show = form.show.value;
  let shown = 0;
  for (const row of document.querySelectorAll("#list > li")) {
    const fits = words.every(word => row.dataset.text.includes(word)) && (row.dataset.is ?? "").split(" ").includes(show);
    row.hidden = !fits;
    shown += fits;
  }
  $("#nothing").hidden = shown > 0;
}

const filters = $("[data-filters]");
if (filters) {
  // What was filtered by the hub is not all here: the script filters what is.
  const before = new URLSearchParams(location.search);
  if (before.get("q") || (before.get("show") ?? "all") !== "all") {
    history.replaceState(null, "", "/");
    refresh().then(filter);
  }
  filters.addEventListener("input", filter);
  filter();
}
for (const form of document.querySelectorAll("[data-submits]")) {
  form.addEventListener("change", () => form.requestSubmit());
}
for (const place of document.querySelectorAll("[data-load]")) load(place);

/** Ages and ends in their largest unit, as the hub writes them. */
function inWords(seconds) {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

setInterval(() => {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = Math.floor((now - Date.parse(time.dateTime)) / 1000);
    const text = seconds < 0 ? `in ${inWords(-seconds)}` : `${inWords(seconds)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
  for (const end of document.querySelectorAll("[data-until]")) {
    end.textContent = inWords(Math.max(0, Math.ceil((Date.parse(end.dataset.until) - now) / 1000)));
  }
}, 1000);

// Comparing everything, with how far it is.
for (const button of document.querySelectorAll("[data-sync]")) {
  button.addEventListener("click", async () => {
    const [bar, now] = [$("#sync-bar"), $("#sync-now")];
    const buttons = document.querySelectorAll("[data-sync]");
    $("#compare .problem")?.remove();
    buttons.forEach(it => (it.disabled = true));
    Object.assign(now, { hidden: false, textContent: "Asking devices and cloud…" });
    bar.hidden = false;
    bar.removeAttribute("value");
    try {
      const look = button.dataset.sync ? "&look_only=true" : "";
      for await (const line of lines(await ask("POST", `/v1/sync?progress=true${look}`))) {
        if (line.code) throw line;
        if (line.of) Object.assign(bar, { max: line.of, value: line.compared });
        if (line.nodes) now.textContent = line.in_sync ? "All agree." : "Not all agree; see below.";
      }
      await refresh();
    } catch (error) {
      now.hidden = true;
      $("#compare").append(problem(error));
    }
    bar.hidden = true;
    buttons.forEach(it => (it.disabled = false));
  });
}

/** The JSON lines of an answer, as they come. */
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    rest += value ?? "";
    const whole = rest.split("\n");
    rest = whole.pop();
    for (const line of whole) if (line.trim()) yield JSON.parse(line);
    if (done) return;
  }
}

if ($("#add")) import("./add.js");
if ($("#share-form")) import("./share.js");
if ($("#view")) follow();
