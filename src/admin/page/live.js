// Keeps a view fresh: follows the admin log by server-sent events, and when something happened fetches the view again and puts
// those of its parts in place that have changed. Nothing reloads.

import { ask, filter } from "./app.js";

/** Between two looks, however much happens. */
const PAUSE = 1000;
/** What no entry of the log tells (last contact, tries): a look this often. */
const ANYWAY = 30000;
/** So many devices are fetched one by one, else the whole list. */
const FEW = 20;

const changed = new Set();
let looking = Promise.resolve();
let due;

/** Looks again soon. */
function soon(node) {
  if (node) changed.add(node);
  due ??= setTimeout(() => {
    due = undefined;
    refresh();
  }, PAUSE);
}

/** Looks again now; one look at a time. */
export function refresh() {
  looking = looking.then(look, look);
  return looking;
}

async function look() {
  const here = new URL(location.href);
  const list = document.querySelector("[data-rows]");
  const only = list && changed.size && changed.size <= FEW ? [...changed] : undefined;
  if (only) here.searchParams.set("only", only.join(","));
  changed.clear();
  let text;
  try {
    text = await (await ask("GET", here.pathname + here.search)).text();
  } catch {
    return;
  }
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live]")) replace(part, fresh.getElementById(part.id));
  const rows = fresh.querySelector("[data-rows]");
  if (list && rows) replaceRows(list, rows, only);
  // The first device takes the place of the words that there is none.
  if (!list !== !rows && document.getElementById("devices")) {
    document.getElementById("view").replaceChildren(...fresh.getElementById("view").childNodes);
  }
}

/** A part in its new form, unless it is the same, or somebody is typing in it. */
function replace(part, fresh) {
  if (!fresh || part.isEqualNode(fresh)) return;
  const active = document.activeElement;
  if (part.contains(active) && active.matches("input, select, textarea")) return;
  if (part.querySelector("dialog[open]")) return;
  for (const open of part.querySelectorAll("details[id]")) {
    const again = fresh.querySelector(`#${CSS.escape(open.id)}`);
    if (again) again.open = open.open;
  }
  const path = part.contains(active) ? focusPath(part, active) : undefined;
  part.replaceChildren(...fresh.childNodes);
  if (path) part.querySelectorAll("a, button, summary, [tabindex]")[path.index]?.focus({ preventScroll: true });
}

function focusPath(part, active) {
  const index = [...part.querySelectorAll("a, button, summary, [tabindex]")].indexOf(active);
  return index < 0 ? undefined : { index };
}

function replaceRows(list, rows, only) {
  const fresh = new Map([...rows.children].map(row => [row.id, row]));
  const known = new Map([...list.children].map(row => [row.id, row]));
  for (const [id, row] of known) {
    const again = fresh.get(id);
    // Hidden by the search, which is done again below.
    row.hidden = false;
    const gone = !again && (!only || only.some(node => id === `node-${node}`));
    if (gone) row.remove();
    else if (again && !row.isEqualNode(again)) {
      const focused = row.contains(document.activeElement);
      row.replaceWith(again);
      if (focused) again.querySelector("a").focus({ preventScroll: true });
    }
  }
  for (const [id, row] of fresh) if (!known.has(id)) list.append(row);
  filter();
}

const link = document.getElementById("link");

function say(state, text) {
  if (!link) return;
  link.dataset.state = state;
  link.textContent = text;
}

/** Follows the log for as long as somebody looks. */
export async function follow() {
  let last;
  setInterval(() => document.hidden || soon(), ANYWAY);
  for (const part of document.querySelectorAll("[data-every]")) {
    setInterval(() => document.hidden || soon(), 1000 * part.dataset.every);
  }
  for (let failures = 0; ; ) {
    // A browser has few connections to one hub: a tab that nobody sees gives its own back.
    if (document.hidden) await new Promise(done => document.addEventListener("visibilitychange", done, { once: true }));
    const stop = new AbortController();
    const hide = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const headers = last ? { "last-event-id": last } : {};
      const answer = await fetch("/v1/events", { headers, signal: stop.signal });
      if (answer.status === 401) return say("lost", "logged out");
      if (!answer.ok) throw new Error(answer.statusText);
      say("live", "live");
      if (failures || last) soon();
      failures = 0;
      for await (const event of events(answer.body)) {
        last = event.id || last;
        soon(event.data.node_id);
      }
    } catch {
      failures += !document.hidden;
    }
    document.removeEventListener("visibilitychange", hide);
    if (document.hidden) continue;
    say("lost", "connection lost, trying again");
    await new Promise(done => setTimeout(done, Math.min(1000 * 2 ** failures, 15000)));
  }
}

/** Server-sent events as they come: `{ id, data }`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const whole = rest.split("\n\n");
    rest = whole.pop();
    for (const block of whole) {
      const fields = block.split("\n").map(line => line.match(/^(\w+): ?(.*)$/)).filter(Boolean);
      const data = fields.filter(([, name]) => name === "data").map(([, , text]) => text).join("\n");
      const id = fields.find(([, name]) => name === "id")?.[2];
      if (data) yield { id, data: JSON.parse(data) };
    }
  }
}
