// The page: who is signed in, which view is shown, and what repeats while it is.

import * as api from "./api.js";
import { card, dialog, h, notice } from "./dom.js";
import { overview } from "./overview.js";
import { run, runs } from "./runs.js";
import { budgets, credentials, keys } from "./settings.js";
import { usage } from "./usage.js";

const VIEWS = [
  { path: "/", title: "Overview", key: "o", view: overview },
  { path: "/runs", title: "Runs", key: "r", view: runs },
  { path: "/usage", title: "Usage", key: "u", view: usage },
  { path: "/keys", title: "API keys", key: "k", view: keys, scope: "admin:keys" },
  { path: "/budgets", title: "Budgets", key: "b", view: budgets, scope: "admin:budgets" },
  { path: "/credentials", title: "Provider keys", key: "p", view: credentials, scope: "admin:credentials" },
];
const main = document.getElementById("main");
const header = document.getElementById("top");
let current = null;

/** What a view may do while it is shown; everything it has begun ends with it. */
class Page {
  constructor() {
    this.ended = new AbortController();
    this.resting = false;
    this.failures = 0;
  }

  show(...children) {
    main.replaceChildren(...children);
  }

  /** Do something now, and again as long as the view is shown and the tab is seen; less often while it fails. */
  every(ms, work) {
    const over = this.ended.signal;
    let timer = null;
    let busy = false;
    const turn = async () => {
      clearTimeout(timer);
      if (busy || over.aborted || this.resting) return;
      busy = true;
      const well = document.visibilityState === "hidden" || (await this.soon(work));
      busy = false;
      if (!over.aborted && !this.resting) timer = setTimeout(turn, well ? ms : Math.min(60_000, ms * 2 ** this.failures));
    };
    over.addEventListener("abort", () => clearTimeout(timer));
    // Who comes back to the tab sees what is now, not what was.
    document.addEventListener("visibilitychange", turn, { signal: over });
    turn();
  }

  /** Do something once. False if it failed. */
  async soon(work) {
    try {
      await work(this.ended.signal);
      this.failures = 0;
      offline(null);
      return true;
    } catch (error) {
      if (error.name === "AbortError" || this.ended.signal.aborted) return true;
      this.failures = Math.min(6, this.failures + 1);
      if (error.status === 401) {
        leave("That key is not taken any more.");
      } else if (error.status === 0 || error.status >= 500) {
        offline(error.message);
      } else {
        this.rest();
        this.show(card("That did not work", h("p", null, error.message), h("p", null, h("a", { href: "#/" }, "To the overview"))));
      }
      return false;
    }
  }

  rest() {
    this.resting = true;
  }

  go(path, query = {}) {
    const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
    const to = `#${path}${asked.size ? `?${asked}` : ""}`;
    if (location.hash === to) route();
    else location.hash = to;
  }

  end() {
    this.ended.abort();
  }
}

function offline(message) {
  const before = document.getElementById("offline");
  if (before) before.remove();
  if (message) main.before(h("div", { id: "offline", role: "alert" }, `${message} What is shown may be old.`));
}

function route() {
  if (api.me === null) return;
  const [path, asked] = (location.hash.slice(1) || "/").split("?");
  const query = new URLSearchParams(asked ?? "");
  const parts = path.split("/").filter(Boolean).map(decode);
  const known = VIEWS.find((each) => each.path === `/${parts[0] ?? ""}`) ?? VIEWS[0];
  const view = known.scope && !api.may(known.scope) ? VIEWS[0] : known;
  current?.end();
  current = new Page();
  offline(null);
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.path === view.path) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${parts[1] ? "Run" : view.title} · runrails`;
  document.getElementById("q").value = view.path === "/runs" ? query.get("q") ?? "" : "";
  if (view.path === "/runs" && parts[1]) run(current, parts[1]);
  else view.view(current, query);
  if (document.activeElement === document.body || header.contains(document.activeElement)) main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

function enter() {
  header.hidden = false;
  document.getElementById("nav").replaceChildren(...VIEWS.filter((each) => !each.scope || api.may(each.scope)).map((each) =>
    h("a", { href: `#${each.path}`, "data-path": each.path }, each.title)));
  document.getElementById("out").title = `Signed in as ${api.me.user}. Sign out`;
  route();
}

function leave(message = "") {
  current?.end();
  current = null;
  api.signOut();
  header.hidden = true;
  document.querySelectorAll("dialog").forEach((each) => each.close());
  offline(null);
  document.title = "runrails";
  door(message);
}

function door(message) {
  const problem = h("p", { class: "problem", role: "alert" }, message);
  const key = h("input", { type: "password", name: "key", required: true, autocomplete: "off", spellcheck: "false", maxlength: 8192, placeholder: "rr_live_…", autofocus: true });
  const keep = h("input", { type: "checkbox", checked: true });
  const button = h("button", { type: "submit" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    problem.textContent = "";
    try {
      await api.signIn(key.value.trim(), keep.checked);
      enter();
    } catch (error) {
      problem.textContent = error.status === 401 ? "That is no valid key." : error.message;
      key.select();
    } finally {
      button.disabled = false;
    }
  };
  main.replaceChildren(h("form", { class: "door card", onsubmit: submit },
    h("h1", null, "runrails"), h("p", null, "What agents spend, and what stopped them."),
    h("label", { class: "field" }, h("span", null, "API key"), key, h("small", null, "An operator's key shows everything, any other one its own.")),
    h("label", { class: "check" }, keep, "Stay signed in until this tab is closed"), problem, button));
  key.focus();
}

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

function theme(next) {
  const names = Object.keys(THEMES);
  let name = localStorage.getItem("runrails-theme") ?? "";
  if (!names.includes(name)) name = "";
  if (next) name = names[(names.indexOf(name) + 1) % names.length];
  localStorage.setItem("runrails-theme", name);
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  const control = document.getElementById("theme");
  control.textContent = THEMES[name][0];
  control.setAttribute("aria-label", `Colours: ${THEMES[name][1]}`);
}

function help() {
  const rows = [["/", "Search runs"], ["t", "Colours"], ["?", "This list"], ...VIEWS.filter((each) => !each.scope || api.may(each.scope)).map((each) => [`g ${each.key}`, each.title])];
  dialog("Keys", (close) => [h("dl", { class: "keys" }, rows.map(([key, words]) => h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, words)))),
    h("div", { class: "actions" }, h("button", { type: "button", autofocus: true, onclick: () => close(null) }, "Close"))]);
}

let before = "";
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || api.me === null) return;
  const goal = before === "g" && VIEWS.find((each) => each.key === event.key);
  before = event.key;
  if (event.key === "/") { event.preventDefault(); document.getElementById("q").focus(); }
  else if (event.key === "?") help();
  else if (event.key === "t" && !goal) theme(true);
  else if (goal) location.hash = `#${goal.path}`;
});
document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  new Page().go("/runs", { q: document.getElementById("q").value.trim() });
});
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
document.getElementById("theme").addEventListener("click", () => theme(true));
document.getElementById("out").addEventListener("click", () => leave());
window.addEventListener("hashchange", route);
window.addEventListener("unhandledrejection", () => notice("Something on this page went wrong. Reload it.", "bad"));

theme(false);
if (api.hasKey()) api.resume().then(enter, (error) => (error.status === 401 ? leave("") : leave(error.message)));
else door("");
