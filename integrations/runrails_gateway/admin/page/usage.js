// A month's calls, by day and by whom or what they were for.

import * as api from "./api.js";
import { card, h, s, table } from "./dom.js";
import { monthChart } from "./overview.js";
import { count, monthBeside, monthName, short, usd } from "./words.js";

const BY = { model: "Model", user: "User", key: "API key", org: "Organisation", agent: "Agent", run: "Run" };
const OWN = ["model", "key", "agent", "run"];

export function usage(page, query) {
  const admin = api.may("admin:usage");
  const by = Object.hasOwn(BY, query.get("by") ?? "") ? query.get("by") : "model";
  const month = /^\d{4}-\d{2}$/.test(query.get("month") ?? "") ? query.get("month") : new Date().toISOString().slice(0, 7);
  const user = query.get("user") ?? "";
  const go = (change) => page.go("/usage", { by, month, user, ...change });
  const choices = Object.entries(BY).filter(([name]) => admin || OWN.includes(name));
  const pick = h("select", { "aria-label": "Sum by", onchange: (event) => go({ by: event.target.value }) },
    choices.map(([value, text]) => h("option", { value, selected: value === by }, `By ${text.toLowerCase()}`)));
  const who = h("input", { type: "search", value: user, placeholder: "Only this user", "aria-label": "Only this user", maxlength: 128 });
  const place = h("div", { class: "slot tall" });
  const latest = new Date().toISOString().slice(0, 7);
  page.show(
    h("div", { class: "head" }, h("h1", null, "Usage"),
      h("form", { class: "filters", onsubmit: (event) => { event.preventDefault(); go({ user: who.value.trim() }); } },
        h("button", { type: "button", class: "quiet", "aria-label": "The month before", onclick: () => go({ month: monthBeside(month, -1) }) }, "‹"),
        h("span", { class: "month" }, monthName(month)),
        h("button", { type: "button", class: "quiet", "aria-label": "The month after", disabled: month >= latest, onclick: () => go({ month: monthBeside(month, 1) }) }, "›"),
        pick, admin && who)),
    place);
  page.every(30_000, async (signal) => {
    const found = await api.get(admin ? "api/usage" : "../v1/usage", { by: ["day", by], month, ...(admin ? { user } : {}) }, signal);
    place.replaceChildren(...content(found, by));
  });
}

function content(found, by) {
  const groups = found.groups[by];
  const highest = Math.max(...groups.map((each) => Number(each.cost_usd)), 0) || 1;
  const share = (each) => s("svg", { class: "meter plain", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "rail", width: 100, height: 6 }), s("rect", { class: "level", width: (Number(each.cost_usd) / highest) * 100, height: 6 }));
  const name = (each) => (each.name === null ? h("em", null, "none")
    : by === "run" ? h("a", { href: `#/runs/${encodeURIComponent(each.name)}` }, each.name.slice(0, 20)) : each.name);
  const columns = [
    { title: BY[by], cell: (each) => [name(each), share(each)], class: "main" },
    { title: "Calls", number: true, cell: (each) => count(each.calls) },
    { title: "Tokens in", number: true, cell: (each) => h("span", { title: count(each.input_tokens) }, short(each.input_tokens)) },
    { title: "Tokens out", number: true, cell: (each) => h("span", { title: count(each.output_tokens) }, short(each.output_tokens)) },
    { title: "Cost", number: true, cell: (each) => h("span", { title: `$${each.cost_usd}` }, usd(each.cost_usd)) },
  ];
  return [
    h("div", { class: "tiles" },
      [["Cost", usd(found.cost_usd)], ["Billed by the platform", usd(found.billed_usd)], ["Calls", count(found.calls)],
        ["Tokens", short(found.input_tokens + found.output_tokens)]].map(([label, value]) =>
        h("div", { class: "tile" }, h("span", { class: "label" }, label), h("strong", null, value)))),
    card(null, monthChart(found)),
    card(null, table("Usage", columns, groups, { empty: "No calls in this month." })),
    found.complete ? "" : h("p", { class: "empty" }, "There were more calls than are looked at; the newest are left out."),
  ];
}
