// The page: which rollout is looked at, who looks, and what is said when something changes.

import { el, morph } from "./charts.js";
import { Refusal, follow } from "./follow.js";
import { list, rollout } from "./pages.js";

const TOKEN = "kohort-token"; // in the tab's own storage: gone with the tab
const SPEECH_MS = 5000; // between two announcements
const MOST_LINES = 3;
const SEARCH_MS = 300;

const main = document.getElementById("main");
const trail = document.getElementById("trail");
const link = document.getElementById("link");
const news = document.getElementById("news");

let stopPresent = () => {};
let redraw = () => {};
let waiting = [];
let spokenAt = 0;

function route() {
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  const parameters = new URLSearchParams(query ?? "");
  return parts.length === 2 ? { namespace: parts[0], name: parts[1] } : { namespace: parameters.get("namespace") ?? "" };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Takes a key of `kubectl kohort view` out of the address bar before anybody can copy it. */
function takeKey() {
  const parameters = new URLSearchParams(location.hash.replace(/^#/, ""));
  const key = parameters.get("key");
  if (!key) return;
  sessionStorage.setItem(TOKEN, key);
  history.replaceState(null, "", `#${parameters.get("to") ?? "/"}`);
}

/** Tells people who listen: not more often than every five seconds, and the newest three lines. */
function say(lines) {
  waiting.push(...lines);
  const pause = spokenAt + SPEECH_MS - Date.now();
  if (!waiting.length || waiting.timer) return;
  waiting.timer = setTimeout(() => {
    const more = waiting.length - MOST_LINES;
    news.textContent = [...waiting.slice(-MOST_LINES), ...(more > 0 ? [`and ${more} other changes`] : [])].join(". ");
    spokenAt = Date.now();
    waiting = [];
  }, Math.max(0, pause));
}

function state(name, why = "") {
  if (link.dataset.state === "live" && name === "lost") say([`Connection lost: ${why}`]);
  link.dataset.state = name;
  link.textContent = name === "lost" ? `not live: ${why}; trying again` : name;
}

function titled(...parts) {
  document.title = [...parts, "Kohort"].filter(Boolean).join(" · ");
}

function places(...parts) {
  const items = parts.map(([text, href]) => (href ? el("a", { href }, text) : el("span", { "aria-current": "page" }, text)));
  trail.replaceChildren(...items.flatMap((item, index) => (index ? [" / ", item] : [item])));
}

async function show(focus) {
  stopPresent();
  const controller = new AbortController();
  stopPresent = () => controller.abort();
  state("connecting");
  const { namespace, name } = route();
  const page = name ? modelPage(namespace, name, focus) : listPage(namespace, focus);
  try {
    await page(controller.signal);
  } catch (error) {
    if (controller.signal.aborted) return;
    if (!(error instanceof Refusal)) throw error;
    state("refused");
    if (error.status === 401) askForToken(error.message);
    else refused(error.message, name ? `#/?namespace=${encodeURIComponent(namespace)}` : "", namespace, !name);
  }
}

function modelPage(namespace, name, focus) {
  places([namespace, `#/?namespace=${encodeURIComponent(namespace)}`], [name]);
  titled(name);
  const body = el("div", {});
  main.replaceChildren(body);
  let last = null;
  redraw = () => {
    if (!last) return;
    const width = Math.max(260, Math.min(1160, main.clientWidth - 36));
    morph(body, el("div", {}, rollout(last, width)));
    titled(name, last.model.phase);
  };
  return (signal) => follow(
    `api/models/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}?minutesEast=${-new Date().getTimezoneOffset()}`,
    sessionStorage.getItem(TOKEN), signal,
    (event, data) => {
      if (event === "gone") throw new Refusal(404, `${name} was deleted.`);
      if (event !== "seen") return;
      const first = last === null;
      last = data;
      redraw();
      say(data.news.filter((line) => !line.includes(": pod ")));
      if (first && focus) body.querySelector("h1").focus();
    }, state);
}

function listPage(namespace, focus) {
  places(namespace ? [`namespace ${namespace}`] : ["all namespaces"]);
  titled(namespace);
  const body = el("div", {});
  const search = el("input", { id: "search", type: "search", maxlength: "253", autocomplete: "off", "aria-keyshortcuts": "/" });
  const heading = el("h1", { tabindex: "-1" }, "Rollouts");
  main.replaceChildren(heading, el("div", {}, forms(namespace, search)), body);
  if (focus) heading.focus();
  let last = null;
  let asked = "";
  redraw = () => last && morph(body, el("div", {}, list(last, search.value)));
  return async (signal) => {
    for (;;) {
      const present = new AbortController();
      const stop = () => present.abort();
      signal.addEventListener("abort", stop, { once: true });
      let timer;
      search.oninput = () => {
        redraw();
        clearTimeout(timer);
        // Beyond what one list holds, the server looks.
        if (asked || last?.more) timer = setTimeout(stop, SEARCH_MS);
      };
      await follow(`api/models?${new URLSearchParams({ namespace, search: asked })}`, sessionStorage.getItem(TOKEN), present.signal,
        (event, data) => {
          if (event !== "seen") return;
          if (last) say(changedPhases(last.models, data.models));
          last = data;
          redraw();
        }, state);
      signal.removeEventListener("abort", stop);
      if (signal.aborted) return;
      asked = search.value;
    }
  };
}

function changedPhases(before, after) {
  const known = new Map(before.map((model) => [`${model.namespace}/${model.name}`, model.phase]));
  return after
    .filter((model) => known.has(`${model.namespace}/${model.name}`) && known.get(`${model.namespace}/${model.name}`) !== model.phase)
    .map((model) => `${model.name}: ${model.phase}`);
}

function forms(namespace, search) {
  const place = el("input", { id: "namespace", value: namespace, maxlength: "63", autocomplete: "off", spellcheck: "false", placeholder: "all" });
  const form = el("form", { role: "search" },
    search ? el("label", { for: "search" }, "Search by name ( / )", search) : null,
    el("label", { for: "namespace" }, "Namespace", place),
    el("button", {}, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const chosen = place.value.trim();
    location.hash = chosen ? `#/?namespace=${encodeURIComponent(chosen)}` : "#/";
  });
  return form;
}

function refused(message, back, namespace, choose) {
  const heading = el("h1", { tabindex: "-1" }, "Not shown");
  main.replaceChildren(heading, el("p", { class: "problem", role: "alert" }, message), ...[
    back ? el("p", {}, el("a", { href: back }, "Rollouts of this namespace")) : null,
    choose ? forms(namespace, null) : null,
    again(),
  ].filter(Boolean));
  redraw = () => {};
}

function again() {
  const button = el("button", { type: "button" }, "Try again");
  button.addEventListener("click", () => show(true));
  return el("p", {}, button);
}

function askForToken(message) {
  const had = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  const input = el("input", { id: "token", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-help" });
  const form = el("form", {}, el("label", { for: "token" }, "Bearer token", input), el("button", {}, "Sign in"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, input.value.trim());
    show(true);
  });
  main.replaceChildren(
    el("h1", {}, "Who are you?"),
    had ? el("p", { class: "problem", role: "alert" }, message) : "",
    el("p", { id: "token-help" }, "You see what your token may get and list. It stays in this tab and is gone with it. ",
      el("code", {}, "kubectl kohort view"), " shows the same page with your own credentials, without any token."),
    form);
  redraw = () => {};
  input.focus();
}

function move(step) {
  const rows = [...main.querySelectorAll("a[data-row]")];
  const present = rows.indexOf(document.activeElement);
  if (present < 0) return false;
  rows[Math.max(0, Math.min(rows.length - 1, present + step))].focus();
  return true;
}

const KEYS = {
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  Home: () => move(-Infinity),
  End: () => move(Infinity),
  "/": () => { const search = document.getElementById("search"); search?.focus(); return Boolean(search); },
  Escape: () => {
    const { namespace, name } = route();
    if (name) location.hash = `#/?namespace=${encodeURIComponent(namespace)}`;
    return Boolean(name);
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement) {
    const first = main.querySelector("a[data-row]");
    if (event.key !== "ArrowDown" || event.target.id !== "search" || !first) return;
    first.focus();
    event.preventDefault();
  } else if (KEYS[event.key]?.()) {
    event.preventDefault();
  }
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after # is the page's own
  main.focus();
});
let resizing;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => redraw(), 150);
});
addEventListener("hashchange", () => {
  takeKey();
  show(true);
});
takeKey();
show(false);
