// API keys, budgets and provider keys.

import * as api from "./api.js";
import { badge, card, confirm, dialog, field, formDialog, h, meter, notice, table } from "./dom.js";
import { ago, count, usd, when } from "./words.js";

const SCOPES = [
  ["ai:complete", "Complete"], ["ai:embed", "Embed"], ["ai:agent", "Run agents"], ["admin:usage", "See usage"],
  ["admin:keys", "Manage keys"], ["admin:budgets", "Manage budgets"], ["admin:credentials", "Provider keys"], ["admin:tokens", "Manage tokens"],
];
const text = (form, name) => form.get(name)?.trim() || null;
const button = (label, onclick, kind = "quiet") => h("button", { type: "button", class: `${kind} small`, onclick }, label);

/** A list with a search box over it; `load(wanted, signal)` gives its content. */
function listPage(page, title, address, query, placeholder, add, load) {
  const place = h("div", { class: "slot" });
  const search = h("input", { type: "search", value: query.get("q") ?? "", placeholder, "aria-label": placeholder, maxlength: 128 });
  const again = () => page.soon(fill);
  let limit = 100;
  const fill = async (signal) => {
    const listing = await load({ q: search.value.trim(), limit }, again, signal);
    const more = listing.has_more && limit < 500 && button("Show more", () => { limit = Math.min(500, limit + 200); again(); });
    place.replaceChildren(listing.content, h("div", { class: "more" }, more || ""));
  };
  page.show(
    h("div", { class: "head" }, h("h1", null, title),
      h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); page.go(address, { q: search.value.trim() }); } }, search, add && add(again))),
    card(null, place));
  page.every(30_000, fill);
}

async function act(work, told, again) {
  try {
    await work();
    notice(told, "good");
  } catch (error) {
    notice(error.message, "bad");
  }
  again();
}

// API keys.

export function keys(page, query) {
  const add = (again) => h("button", { type: "button", onclick: () => newKey(again) }, "New key");
  listPage(page, "API keys", "/keys", query, "Id, name, user", add, async (wanted, again, signal) => {
    const listing = await api.get("api/keys", wanted, signal);
    return { ...listing, content: keyTable(listing.data, again) };
  });
}

function keyTable(rows, again) {
  const kinds = { active: "good", suspended: "warn", revoked: "bad" };
  return table("API keys", [
    { title: "Key", class: "main", cell: (key) => [h("span", null, key.name || h("em", null, "unnamed")), h("small", { class: "mono" }, key.prefix)] },
    { title: "Status", cell: (key) => badge(key.status, kinds[key.status]) },
    { title: "User", cell: (key) => [key.user, key.org && h("small", { class: "after" }, `of ${key.org}`)] },
    { title: "May", cell: (key) => key.scopes.map((each) => h("span", { class: each.startsWith("admin:") ? "tag strong" : "tag" }, each)) },
    { title: "Limits", cell: (key) => limits(key) },
    { title: "Last used", cell: (key) => h("span", { title: when(key.last_used_ms) }, ago(key.last_used_ms)) },
    { title: "", class: "buttons", cell: (key) => keyButtons(key, again) },
  ], rows, { empty: "No keys fit." });
}

function limits(key) {
  const found = [];
  if (key.month_usd) found.push(`${usd(key.month_usd)} a month`);
  if (key.rates?.requests_per_minute) found.push(`${count(key.rates.requests_per_minute)} requests a minute`);
  if (key.rates?.tokens_per_minute) found.push(`${count(key.rates.tokens_per_minute)} tokens a minute`);
  if (key.expires_ms) found.push(`ends ${ago(key.expires_ms)}`);
  if (key.previous_until_ms && key.previous_until_ms > Date.now()) found.push(`older secret ends ${ago(key.previous_until_ms)}`);
  return found.length ? h("small", { class: "lines" }, found.map((each) => h("span", null, each))) : "–";
}

function keyButtons(key, again) {
  if (key.status === "revoked") return "";
  const change = (verb) => api.send("POST", `api/keys/${api.path(key.id)}/${verb}`);
  return [
    key.status === "active"
      ? button("Suspend", () => act(() => change("suspend"), "Suspended. It counts everywhere within 5 seconds.", again))
      : button("Resume", () => act(() => change("resume"), "It is taken again.", again)),
    button("Rotate", () => rotate(key, again)),
    button("Revoke", async () => {
      if (await confirm("Revoke this key?", `${key.prefix} of ${key.user} is never taken again. This is final.`, "Revoke")) {
        await act(() => change("revoke"), "Revoked. It counts everywhere within 5 seconds.", again);
      }
    }, "quiet danger"),
  ];
}

async function newKey(again) {
  const boxes = SCOPES.filter(([scope]) => api.may(scope)).map(([scope, words]) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "scopes", value: scope, checked: scope === "ai:complete" }), `${words} `, h("small", { class: "mono" }, scope)));
  const made = await formDialog("New API key", [
    field("User", h("input", { name: "user", required: true, maxlength: 128, pattern: "[A-Za-z0-9][A-Za-z0-9._@+=\\-]*", autofocus: true }), "Whose it is, and whose money it spends."),
    field("Name", h("input", { name: "name", maxlength: 128 }), "What it is for."),
    api.me.org === null && field("Organisation", h("input", { name: "org", maxlength: 128 })),
    h("fieldset", null, h("legend", null, "It may"), boxes),
    h("div", { class: "row" },
      field("Dollars a month", h("input", { name: "month", inputmode: "decimal", placeholder: "no limit" })),
      field("Requests a minute", h("input", { name: "requests", inputmode: "numeric", placeholder: "no limit" })),
      field("Good for days", h("input", { name: "days", inputmode: "numeric", placeholder: "for ever" }))),
  ], "Make it", (form) => {
    const [days, requests] = [text(form, "days"), text(form, "requests")];
    return api.send("POST", "api/keys", {
      user: text(form, "user"), name: text(form, "name") ?? "", org: text(form, "org"), scopes: form.getAll("scopes"),
      month_usd: text(form, "month"), expires_ms: days === null ? null : Date.now() + Math.round(Number(days) * 86_400_000),
      rates: requests === null ? null : { requests_per_minute: Number(requests) },
    });
  });
  if (made) await showOnce(made);
  again();
}

async function rotate(key, again) {
  const made = await formDialog(`Rotate ${key.prefix}`, [
    h("p", null, "It gets another secret; its id, scopes and budgets stay."),
    field("The secret of now is taken for", h("select", { name: "overlap" },
      [["86400000", "a day"], ["3600000", "an hour"], ["604800000", "a week"], ["0", "no time: somebody has seen it"]].map(([value, words]) => h("option", { value }, words)))),
  ], "Rotate", (form) => api.send("POST", `api/keys/${api.path(key.id)}/rotate`, { overlap_ms: Number(form.get("overlap")) }));
  if (made) await showOnce(made);
  again();
}

function showOnce(made) {
  return dialog("Copy this key now", (close) => {
    const shown = h("input", { class: "mono", readonly: true, value: made.key, "aria-label": "The key", onfocus: (event) => event.target.select() });
    const copy = h("button", { type: "button", onclick: async () => {
      shown.select();
      try { await navigator.clipboard.writeText(made.key); copy.textContent = "Copied"; } catch { document.execCommand("copy"); }
    } }, "Copy");
    return [h("p", null, "This is the only time that it is shown. Keep it where secrets are kept."), h("div", { class: "once" }, shown, copy),
      h("div", { class: "actions" }, h("button", { type: "button", class: "quiet", onclick: () => close(true) }, "I have it"))];
  });
}

// Budgets.

export function budgets(page, query) {
  const kind = ["user", "key", "org", "byok"].includes(query.get("kind")) ? query.get("kind") : "";
  const add = (again) => [
    h("select", { "aria-label": "Which budgets", onchange: (event) => page.go("/budgets", { kind: event.target.value, q: query.get("q") }) },
      [["", "All budgets"], ["user", "Users"], ["key", "Keys"], ["org", "Organisations"], ["byok", "On users' own keys"]].map(([value, words]) => h("option", { value, selected: value === kind }, words))),
    h("button", { type: "button", onclick: () => setLimit(null, again) }, "Set a limit"),
  ];
  listPage(page, "Budgets", "/budgets", query, "user:alice, org:acme …", add, async (wanted, again, signal) => {
    const listing = await (api.me.org === null ? api.get("api/budgets", { ...wanted, kind }, signal) : ofOne(wanted, signal));
    return { ...listing, content: budgetTable(listing.data, again) };
  });
}

/** An organisation's administrator sees one scope at a time: the organisation's, or the one that is searched for. */
async function ofOne({ q, limit }, signal) {
  try {
    return await api.get(`api/budgets/${api.path(q || `org:${api.me.org}`)}`, { limit }, signal);
  } catch (error) {
    if (error.status === 404) return { data: [], has_more: false };
    throw error;
  }
}

function budgetTable(rows, again) {
  const kinds = { active: ["good", "active"], warning: ["warn", "warning"], blocked: ["bad", "used up"] };
  const amount = (each, name) => (each.unit === "pusd" ? usd(each[`${name}_usd`]) : each[name] === null ? "–" : count(each[name]));
  const used = (each) => (each.limit ? (each.spent + each.held) / each.limit : 0);
  return table("Budgets", [
    { title: "Scope", class: "main", cell: (each) => [each.scope, " ", each.unit !== "pusd" && h("span", { class: "tag" }, each.unit), each.limit ? meter(used(each), each.status, `${Math.round(used(each) * 100)} % used`) : ""] },
    { title: "Period", cell: (each) => each.period ?? "every" },
    { title: "Status", cell: (each) => badge(kinds[each.status][1], kinds[each.status][0]) },
    { title: "Limit", number: true, cell: (each) => [amount(each, "limit"), each.limit_source === "operator" && h("small", null, " set here")] },
    { title: "Spent", number: true, cell: (each) => h("span", { title: each.spent_usd && `$${each.spent_usd}` }, amount(each, "spent")) },
    { title: "Held", number: true, cell: (each) => amount(each, "held") },
    { title: "Left", number: true, cell: (each) => amount(each, "available") },
    { title: "", class: "buttons", cell: (each) => button("Set limit", () => setLimit(each, again)) },
  ], rows, { empty: "No budgets fit. One is made by the first call, or by setting a limit." });
}

async function setLimit(each, again) {
  const money = each === null || each.unit === "pusd";
  const done = await formDialog(each === null ? "Set a limit" : `Limit of ${each.scope}`, [
    h("p", null, "It counts from now on and in every month, and wins over limits in code."),
    each === null && field("Scope", h("input", { name: "scope", required: true, maxlength: 160, placeholder: "user:alice", autofocus: true }), "user:NAME, key:ID or org:NAME"),
    field(money ? "Dollars" : `A number of ${each.unit}`, h("input", { name: "limit", inputmode: "decimal", maxlength: 32, value: (money ? each?.limit_usd : each?.limit) ?? "", autofocus: each !== null }), "Leave it empty to remove the limit that was set here."),
  ], "Set", (form) => api.send("PUT", `api/budgets/${api.path(each?.scope ?? text(form, "scope"))}`, { limit: text(form, "limit"), unit: each?.unit ?? "pusd" }));
  if (done) notice("The limit is set.", "good");
  again();
}

// Provider keys.

export function credentials(page, query) {
  const add = (again) => h("button", { type: "button", onclick: () => addCredential(again) }, "Add a key");
  listPage(page, "Provider keys", "/credentials", query, "Owner: user:alice, platform …", add, async (wanted, again, signal) => {
    const listing = await api.get("api/credentials", { owner: wanted.q, limit: wanted.limit }, signal);
    return { ...listing, content: credentialTable(listing.data, again) };
  });
}

function credentialTable(rows, again) {
  const kinds = { valid: "good", invalid: "bad", unverified: "plain", suspended: "warn" };
  return table("Provider keys", [
    { title: "Owner", class: "main", cell: (each) => each.owner },
    { title: "Provider", cell: (each) => [each.provider, " ", each.label !== "default" && h("span", { class: "tag" }, each.label)] },
    { title: "Key", cell: (each) => h("span", { class: "mono" }, each.hint ? `…${each.hint}` : "–") },
    { title: "Status", cell: (each) => (each.readable ? badge(each.status, kinds[each.status]) : badge("damaged", "bad")) },
    { title: "Checked", cell: (each) => h("span", { title: when(each.checked_ms) }, ago(each.checked_ms)) },
    { title: "Since", cell: (each) => h("span", { title: when(each.rotated_ms) }, ago(each.rotated_ms)) },
    { title: "", class: "buttons", cell: (each) => credentialButtons(each, again) },
  ], rows, { empty: "No provider keys are stored." });
}

function credentialButtons(each, again) {
  const address = `api/credentials/${api.path(each.owner, each.provider, each.label)}`;
  return [
    button("Check", async () => {
      try {
        const told = await api.send("POST", `${address}/validate`);
        notice(`${each.provider} says: ${told.answer} (${told.reason.replaceAll("_", " ")}).`, told.answer === "invalid" ? "bad" : "good");
      } catch (error) {
        notice(error.message, "bad");
      }
      again();
    }),
    each.status === "suspended"
      ? button("Resume", () => act(() => api.send("POST", `${address}/resume`), "It may be used again.", again))
      : button("Suspend", () => act(() => api.send("POST", `${address}/suspend`), "No call goes out on it.", again)),
    button("Replace", async () => {
      const done = await formDialog(`Replace the ${each.provider} key of ${each.owner}`, [secretField()], "Replace", (form) => api.send("POST", `${address}/rotate`, { key: form.get("key") }));
      if (done) notice("The key is replaced.", "good");
      again();
    }),
    button("Remove", async () => {
      if (await confirm("Remove this key?", `The ${each.provider} key of ${each.owner} is deleted here. At the provider it stays as it is.`, "Remove")) {
        await act(() => api.send("DELETE", address), "Removed.", again);
      }
    }, "quiet danger"),
  ];
}

const secretField = () => field("Key", h("input", { name: "key", type: "password", required: true, autocomplete: "off", spellcheck: "false", maxlength: 16384 }), "It is sealed at once, and never shown again.");

async function addCredential(again) {
  const done = await formDialog("Add a provider key", [
    field("Owner", h("input", { name: "owner", required: true, maxlength: 140, placeholder: "user:alice", autofocus: true }), "user:NAME, org:NAME or platform"),
    h("div", { class: "row" },
      field("Provider", h("input", { name: "provider", required: true, maxlength: 32, placeholder: "openai", list: "providers" })),
      field("Label", h("input", { name: "label", maxlength: 64, placeholder: "default" }))),
    h("datalist", { id: "providers" }, ["openai", "anthropic", "bedrock"].map((value) => h("option", { value }))),
    secretField(),
    field("Base URL", h("input", { name: "base_url", type: "url", maxlength: 1024 }), "Only if it is not the provider's own."),
  ], "Store it", (form) => api.send("POST", "api/credentials", {
    owner: text(form, "owner"), provider: text(form, "provider"), label: text(form, "label") ?? "default", key: form.get("key"), base_url: text(form, "base_url"),
  }));
  if (done) notice("The key is stored, sealed.", "good");
  again();
}
