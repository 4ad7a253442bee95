// Runs: the list, and one of them step by step.

import * as api from "./api.js";
import { curve } from "./charts.js";
import { badge, card, h, meter, table } from "./dom.js";
import { ago, atMinute, count, ended, many, short, span, state, usd, when } from "./words.js";

const STEPS_SHOWN = 150;
const PAGE = 50;
const base = () => (api.may("admin:usage") ? "api/runs" : "../v1/runs");

export function runs(page, query) {
  const wanted = { q: query.get("q") ?? "", stopped: query.get("stopped") ?? "" };
  const place = h("div", { class: "slot" });
  const more = h("div", { class: "more" });
  const which = h("select", { "aria-label": "Which runs" },
    [["", "All runs"], ["true", "Stopped"], ["false", "Not stopped"]].map(([value, text]) =>
      h("option", { value, selected: value === wanted.stopped }, text)));
  const clear = h("a", { href: "#/runs" }, "show all");
  page.show(
    h("div", { class: "head" }, h("h1", null, "Runs"),
      h("div", { class: "filters" }, wanted.q && h("span", { class: "asked" }, "with ", h("q", null, wanted.q), " · ", clear), which)),
    card(null, place, more));
  which.addEventListener("change", () => page.go("/runs", { q: wanted.q, stopped: which.value }));
  let found = [];
  let pages = 1;
  const load = async (signal) => {
    const listing = await api.get(base(), { ...wanted, limit: Math.min(500, PAGE * pages) }, signal);
    found = listing.data;
    place.replaceChildren(list(found, wanted));
    more.replaceChildren(listing.has_more ? h("button", { type: "button", class: "quiet", onclick: () => { pages += 1; page.soon(load); } }, "Show more") : "");
  };
  page.every(10_000, load);
}

function list(found, wanted) {
  const admin = api.may("admin:usage");
  const name = (run) => [
    h("a", { href: `#/runs/${encodeURIComponent(run.run)}`, title: run.run }, run.name || run.run.slice(0, 16)),
    Object.entries(run.tags).slice(0, 3).map(([tag, value]) => h("span", { class: "tag" }, `${tag}=${value}`)),
  ];
  const columns = [
    { title: "Run", cell: name, class: "main" },
    { title: "State", cell: (run) => badge(...state(run)) },
    admin && { title: "User", cell: (run) => run.user },
    { title: "Started", cell: (run) => h("span", { title: when(run.started_ms) }, ago(run.started_ms)) },
    { title: "Steps", number: true, class: "minor", cell: (run) => count(run.steps) },
    { title: "Tokens", number: true, class: "minor", cell: (run) => short(run.tokens) },
    { title: "Cost", number: true, cell: (run) => cost(run) },
  ].filter(Boolean);
  const empty = wanted.q || wanted.stopped ? "No run fits." : "No runs yet. A run appears with the first call of a model.";
  return table("Runs", columns, found, { empty, rowClass: (run) => (run.stop_reason ? "stopped" : null) });
}

function cost(run) {
  const share = run.limit_usd ? Number(run.cost_usd) / Number(run.limit_usd) : 0;
  return h("span", { class: "cost", title: `$${run.cost_usd}${run.limit_usd ? ` of $${run.limit_usd}` : ""}` }, usd(run.cost_usd),
    run.limit_usd && meter(share, share >= 1 ? "blocked" : share >= 0.8 ? "warning" : "plain", `${Math.round(share * 100)} % of its budget`));
}

export function run(page, id) {
  const place = h("div", { class: "slot tall" });
  page.show(h("p", { class: "crumbs" }, h("a", { href: "#/runs" }, "Runs"), " / ", h("span", { class: "mono" }, id.slice(0, 24))), place);
  let shown = "";
  const load = async (signal) => {
    const found = await api.get(`${base()}/${api.path(id)}`, {}, signal);
    const text = JSON.stringify(found);
    if (text !== shown) place.replaceChildren(...detail(found));
    shown = text;
    if (!found.open) page.rest();
  };
  page.every(4_000, load);
}

function detail(found) {
  return [
    h("div", { class: "head" }, h("h1", null, found.name || "Run"), badge(...state(found))),
    why(found), facts(found), costs(found), steps(found),
  ].filter(Boolean);
}

function why(found) {
  const message = found.stop_message ?? found.would_have_stopped ?? found.refused;
  if (!message && !found.findings.length) return null;
  const stop = found.findings.findLast((each) => each.level === "stop");
  const [word] = state(found);
  const advice = stop?.how_to_allow;
  const told = stop ? stop.what_happened : message;
  const parts = [];
  if (message || stop) {
    parts.push(h("section", { class: `why ${found.stop_reason ? "bad" : "warn"}`, "aria-label": "Why it was stopped or refused" },
      h("h2", null, found.stop_reason ? `Why it was stopped: ${word.toLowerCase()}` : found.would_have_stopped || stop ? "It would have been stopped" : "Why a call was refused"),
      h("p", null, told),
      stop && h("p", { class: "chain" }, h("span", { class: "mono" }, stop.tool),
        h("span", null, `the same outcome ${many(stop.count, "time")}, threshold ${stop.threshold}`),
        h("span", { class: "rule" }, stop.rule.replaceAll("_", " "))),
      advice && h("details", null, h("summary", null, "If this is meant"), h("p", null, advice))));
  }
  const hints = found.findings.filter((each) => each !== stop);
  if (hints.length) {
    parts.push(h("ul", { class: "findings" }, hints.slice(-10).map((each) =>
      h("li", null, badge(each.level, each.level === "hint" ? "plain" : "warn"), h("span", null, each.what_happened)))));
  }
  return h("div", null, parts);
}

function facts(found) {
  const limit = found.limit_usd;
  const share = limit ? Number(found.cost_usd) / Number(limit) : 0;
  const pair = (name, value) => (value ? h("div", null, h("dt", null, name), h("dd", null, value)) : null);
  const costs = h("span", { title: `$${found.cost_usd}` }, usd(found.cost_usd), limit && h("small", null, ` of ${usd(limit)}`));
  return card(null, h("dl", { class: "facts" },
    pair("Cost", [costs, limit && meter(share, share >= 1 ? "blocked" : share >= 0.8 ? "warning" : "plain", `${Math.round(share * 100)} % of its budget`)]),
    pair("User", found.user), pair("Key", found.key && h("span", { class: "mono" }, found.key)), pair("Organisation", found.org),
    pair("Started", when(found.started_ms)),
    pair(found.open ? "Running for" : "Took", span((found.ended_ms ?? Date.now()) - found.started_ms)),
    pair("Steps", [many(found.model_calls, "model call"), found.tool_calls > 0 && `, ${many(found.tool_calls, "tool call")}`]),
    pair("Tokens", `${count(found.input_tokens)} in, ${count(found.output_tokens)} out`),
    pair("Guard", found.hints + found.blocks + found.refusals > 0 && `${many(found.hints, "hint")}, ${many(found.blocks, "block")}, ${many(found.refusals, "refusal")}`),
    pair("Not confirmed", Number(found.unresolved_usd) > 0 && usd(found.unresolved_usd)),
    pair("Above the holds", Number(found.overrun_usd) > 0 && usd(found.overrun_usd)),
    pair("Mode", found.mode === "observe" && "observe: nothing is stopped"),
    found.savings.map((each) => pair(`Saved by ${each.what}`, `${usd(each.saved_usd)} (${many(each.calls, "call")})`)),
    pair("Tags", Object.keys(found.tags).length > 0 && Object.entries(found.tags).map(([tag, value]) => h("span", { class: "tag" }, `${tag}=${value}`))),
    pair("Id", h("span", { class: "mono small" }, found.run))));
}

function costs(found) {
  if (found.timeline.length < 3 || Number(found.cost_usd) === 0) return null;
  const limit = found.limit_usd ? Number(found.limit_usd) : null;
  let sum = 0;
  const start = { value: 0, marked: false, text: "At the beginning: nothing" };
  const points = [start, ...found.timeline.map((each) => {
    sum += Number(each.cost_usd);
    return { value: sum, marked: each.in_loop, text: `Step ${each.step}, ${each.name}: ${usd(String(sum))} so far` };
  })];
  const first = found.timeline[0].step;
  const last = found.timeline[found.timeline.length - 1].step;
  return card(null, curve("Spent, step by step", points, {
    axis: [first === 1 ? "start" : `step ${first}`, `step ${last}`], limit,
    top: limit !== null && limit <= sum * 3 ? `budget ${usd(found.limit_usd)}` : usd(found.cost_usd),
  }));
}

function steps(found) {
  const all = found.timeline;
  if (!all.length) return card("Timeline", h("p", { class: "empty" }, "No steps are kept of this run."));
  const place = h("ol", { class: "timeline" });
  const draw = (from) => {
    const rows = all.slice(from).map((each, at) => step(each, all[from + at - 1]));
    if (found.stop_reason) rows.push(h("li", { class: "end bad" }, h("span", { class: "dot" }), h("div", { class: "what" }, h("strong", null, `Stopped: ${state(found)[0].toLowerCase()}`), h("small", null, ending(found)))));
    else if (!found.open) rows.push(h("li", { class: "end good" }, h("span", { class: "dot" }), h("div", { class: "what" }, h("strong", null, "Finished"))));
    place.replaceChildren(...rows);
  };
  const from = Math.max(0, all.length - STEPS_SHOWN);
  draw(from);
  const older = from > 0 && h("button", { type: "button", class: "quiet", onclick: (event) => { draw(0); event.target.remove(); } }, `Show ${count(from)} earlier steps`);
  const lost = found.steps_left_out > 0 && h("p", { class: "empty" }, `${count(found.steps_left_out)} older steps are not kept.`);
  return card("Timeline", lost, older, place);
}

function ending(found) {
  const stop = found.findings.findLast((each) => each.level === "stop");
  return stop ? `after ${stop.tool} gave the same outcome ${many(stop.count, "time")}` : "nothing starts after this";
}

function step(each, before) {
  const [word, kind] = ended(each);
  const gap = each.at_ms !== null && before?.at_ms ? null : each.at_ms;
  const numbers = each.kind === "model"
    ? [each.input_tokens + each.output_tokens > 0 && `${count(each.input_tokens)} in, ${count(each.output_tokens)} out`, span(each.duration_ms)]
    : [span(each.duration_ms)];
  return h("li", { class: `${each.kind} ${each.in_loop ? "looped" : ""} ${kind}` },
    h("span", { class: "dot", "aria-hidden": "true" }),
    h("span", { class: "number" }, String(each.step)),
    h("div", { class: "what" },
      h("span", { class: "kind" }, each.kind === "model" ? "model" : "tool"),
      h("span", { class: "name" }, each.name || "–"),
      each.agent && h("span", { class: "tag" }, each.agent),
      word && badge(word, kind),
      each.in_loop && badge("repeated", "bad"),
      h("small", null, numbers.filter(Boolean).join(" · "), gap ? ` · ${atMinute(gap)}` : "")),
    h("span", { class: "amount", title: `$${each.cost_usd}` }, each.kind === "model" ? usd(each.cost_usd) : ""));
}
