// What is spent now, and what has been stopped.

import * as api from "./api.js";
import { bars, shares } from "./charts.js";
import { badge, card, h, meter } from "./dom.js";
import { ago, atMinute, count, day, daysOf, many, monthName, span, state, usd } from "./words.js";

const LIVE_MS = 3_000;
const REST_MS = 30_000;

export function overview(page) {
  return api.may("admin:usage") ? platform(page) : own(page);
}

function tile(label, value, note, kind = "") {
  return h("div", { class: `tile ${kind}` }, h("span", { class: "label" }, label), h("strong", null, value), h("small", null, note));
}

function platform(page) {
  const live = h("div", { class: "tiles", "aria-busy": "true" });
  const minutes = h("div", { class: "slot tall" });
  const rest = h("div", null);
  page.show(h("h1", null, "Overview"), live, card(null, minutes), rest);
  page.every(LIVE_MS, async (signal) => {
    const now = await api.get("api/live", {}, signal);
    live.replaceChildren(...tiles(now));
    live.removeAttribute("aria-busy");
    minutes.replaceChildren(hourChart(now, minutes));
  });
  page.every(REST_MS, async (signal) => {
    const [usage, runs, budgets] = await Promise.all([
      api.get("api/usage", { by: ["day", "model", "user"] }, signal),
      api.get("api/runs", { stopped: true, limit: 8 }, signal),
      api.may("admin:budgets") && !api.me.org ? api.get("api/budgets", { period: new Date().toISOString().slice(0, 7), limit: 500 }, signal) : null,
    ]);
    rest.replaceChildren(
      h("div", { class: "columns" },
        card(null, monthChart(usage)),
        card("Stopped lately", stops(runs.data))),
      h("div", { class: "columns" },
        card(`Models in ${monthName(usage.month)}`, topShares(usage.groups.model, "model")),
        card(`Users in ${monthName(usage.month)}`, topShares(usage.groups.user, "user"))),
      tight(budgets));
  });
}

function tiles(now) {
  const own = Number(now.month_own_key_usd) > 0 ? `and ${usd(now.month_own_key_usd)} on users' own keys` : monthName(now.month);
  return [
    tile("This month", usd(now.month_usd), Date.now() - now.as_of_ms > 15_000 ? `as of ${ago(now.as_of_ms)}` : own),
    tile("Today (UTC)", usd(now.today_usd), many(now.today_calls, "call")),
    tile("Last hour", usd(now.hour_usd), many(now.hour_calls, "call")),
    tile("In flight", count(now.in_flight), now.in_flight ? `at most ${usd(now.in_flight_usd)} more` : "no call is open", now.in_flight ? "live" : ""),
  ];
}

function hourChart(now, place) {
  // A chart that is being read is not exchanged under the reader's hand.
  if (place.firstChild && place.matches(":hover, :focus-within")) return place.firstChild;
  const points = now.minutes.map((each) => ({
    value: Number(each.cost_usd), text: `${atMinute(each.at_ms)}: ${usd(each.cost_usd)}, ${many(each.calls, "call")}`,
  }));
  const highest = now.minutes.reduce((most, each) => (Number(each.cost_usd) > Number(most) ? each.cost_usd : most), "0");
  const first = now.minutes[0].at_ms;
  return bars("Spend a minute, last hour", points, {
    axis: [0, 15, 30, 45, 59].map((place) => atMinute(first + place * 60_000)), top: usd(highest), now: points.length - 1,
  });
}

export function monthChart(usage) {
  const found = new Map(usage.groups.day.map((each) => [each.name, each]));
  const days = daysOf(usage.month);
  const points = days.map((name) => {
    const each = found.get(name);
    return { value: Number(each?.cost_usd ?? 0), text: `${day(name)}: ${usd(each?.cost_usd ?? "0")}, ${many(each?.calls ?? 0, "call")}` };
  });
  const highest = [...found.values()].reduce((most, each) => (Number(each.cost_usd) > Number(most) ? each.cost_usd : most), "0");
  const places = [0, 7, 14, 21, days.length - 1];
  return bars(`Spend a day, ${monthName(usage.month)}: ${usd(usage.cost_usd)}`, points, {
    axis: places.map((place) => day(days[place])), top: usd(highest), now: days.indexOf(new Date().toISOString().slice(0, 10)),
  });
}

export function topShares(groups, what, most = 6) {
  if (!groups.length) return h("p", { class: "empty" }, "No calls yet.");
  return shares(groups.slice(0, most).map((each) => ({
    name: each.name ?? "(none)", value: Number(each.cost_usd), text: usd(each.cost_usd), note: many(each.calls, "call"),
    href: what === "user" && each.name ? `#/runs?q=${encodeURIComponent(each.name)}` : null,
  })));
}

function stops(runs) {
  if (!runs.length) return h("p", { class: "empty" }, "No run has been stopped. Nothing is stuck, and no budget is used up.");
  return h("ul", { class: "list" }, runs.map((run) => {
    const [word, kind] = state(run);
    return h("li", null,
      h("a", { href: `#/runs/${encodeURIComponent(run.run)}` }, run.name || run.run.slice(0, 12)),
      badge(word, kind), run.stop_tool && h("span", { class: "mono soft" }, run.stop_tool),
      h("small", null, `${run.user}, ${usd(run.cost_usd)}, ${ago(run.ended_ms)}`));
  }));
}

function tight(budgets) {
  const close = (budgets?.data ?? []).filter((each) => each.status !== "active");
  if (!close.length) return "";
  return card("Budgets that are nearly used up", h("ul", { class: "list" }, close.slice(0, 8).map((each) => {
    const share = (Number(each.spent_usd) + Number(each.held_usd)) / Number(each.limit_usd || 1);
    return h("li", { class: "metered" }, h("a", { href: `#/budgets?q=${encodeURIComponent(each.scope)}` }, each.scope),
      badge(each.status === "blocked" ? "used up" : "warning", each.status === "blocked" ? "bad" : "warn"),
      h("small", null, `${usd(each.spent_usd)} of ${usd(each.limit_usd)}`),
      meter(share, each.status, `${Math.round(share * 100)} % used`));
  })));
}

function own(page) {
  const rest = h("div", null);
  page.show(h("h1", null, `Hello, ${api.me.user}`), rest);
  page.every(REST_MS, async (signal) => {
    const [budget, usage, runs] = await Promise.all([
      api.get("../v1/budget", {}, signal), api.get("../v1/usage", { by: ["day", "model"] }, signal),
      api.get("../v1/runs", { stopped: true, limit: 8 }, signal),
    ]);
    rest.replaceChildren(
      h("div", { class: "tiles" }, budget.accounts.map((each) => account(each))),
      h("div", { class: "columns" }, card(null, monthChart(usage)), card("Stopped lately", stops(runs.data))),
      card("Models", topShares(usage.groups.model, "model")));
  });
}

function account(each) {
  const [kind, name] = [each.scope.split(":")[0], each.scope.slice(each.scope.indexOf(":") + 1)];
  const words = { user: "You", key: "This key", org: `Organisation ${name}`, byok: "On your own keys" };
  const share = each.limit_usd ? (Number(each.spent_usd) + Number(each.held_usd)) / Number(each.limit_usd) : 0;
  const value = each.spent_usd === null ? { active: "In budget", warning: "Nearly used up", blocked: "Used up" }[each.status] : usd(each.spent_usd);
  const note = each.limit_usd ? `of ${usd(each.limit_usd)}; a new month in ${span(each.resets_ms - Date.now())}` : each.spent_usd === null ? "amounts are the organisation's" : "no limit";
  const box = tile(words[kind] ?? each.scope, value, note, each.status === "blocked" ? "bad" : "");
  if (each.limit_usd) box.append(meter(share, each.status, `${Math.round(share * 100)} % used`));
  return box;
}
