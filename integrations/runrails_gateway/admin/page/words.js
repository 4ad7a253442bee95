// How numbers, times and reasons are written.

const whole = new Intl.NumberFormat("en-US");
const cents = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" });
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** Dollars from exact text, to the cent, or to two digits where it is less than that. */
export function usd(text) {
  if (text === null || text === undefined) return "–";
  const amount = Number(text);
  if (amount !== 0 && Math.abs(amount) < 0.01) return `$${amount.toPrecision(2).replace(/e.*$/, "") === String(amount) ? amount : small(amount)}`;
  return cents.format(amount);
}

function small(amount) {
  const places = Math.min(12, 1 - Math.floor(Math.log10(Math.abs(amount))));
  return amount.toFixed(places).replace(/0+$/, "");
}

export const count = (value) => whole.format(value);

/** `12.4k`, `3.1M`. */
export function short(value) {
  for (const [size, letter] of [[1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (value >= size) return `${(value / (letter === "k" ? 1e3 : size)).toFixed(1).replace(/\.0$/, "")}${letter}`;
  }
  return count(value);
}

export const many = (value, what) => `${count(value)} ${what}${value === 1 ? "" : "s"}`;

export function when(ms) {
  return ms === null || ms === undefined ? "–" : clock.format(ms);
}

export const atMinute = (ms) => hour.format(ms);

/** `3 min ago`. */
export function ago(ms, now = Date.now()) {
  if (ms === null || ms === undefined) return "never";
  const seconds = Math.round((now - ms) / 1000);
  if (seconds < 0) return `in ${span(-seconds * 1000)}`;
  if (seconds < 10) return "just now";
  return `${span(seconds * 1000)} ago`;
}

/** `1.2 s`, `4 min`, `3 h`, `12 d`. */
export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

const REASONS = {
  loop_detected: "Repeated failure",
  budget_exceeded: "Budget used up",
  limit_reached: "Limit reached",
  scope_exhausted: "Budget used up",
};

/** Why a run was stopped, in two words. */
export const reason = (code) => REASONS[code] ?? String(code).replaceAll("_", " ");

/** The state of a run: a word and its colour. */
export function state(run) {
  if (run.stop_reason) return [reason(run.stop_reason), "bad"];
  if (run.open) return ["Open", "live"];
  if (run.would_have_stopped) return ["Would have stopped", "warn"];
  if (run.refused && run.model_calls === 0) return ["Refused", "warn"];
  return ["Finished", "good"];
}

/** How a step ended: a word and its colour. */
export function ended(step) {
  const bad = { failed: "bad", blocked: "warn", cut: "warn", unknown: "warn", unresolved: "warn", held: "live" };
  const words = { completed: "", ok: "", held: "in flight", unknown: "no answer", cut: "cut off" };
  return [words[step.end] ?? step.end, bad[step.end] ?? "plain"];
}

/** A day of a month, `3 Nov`. */
export function day(text) {
  return new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(`${text}T00:00:00Z`));
}

/** All days of a month as 2026-11. */
export function daysOf(month) {
  const [year, number] = month.split("-").map(Number);
  const last = new Date(Date.UTC(year, number, 0)).getUTCDate();
  return Array.from({ length: last }, (_, n) => `${month}-${String(n + 1).padStart(2, "0")}`);
}

/** The month before (-1) or after (1). */
export function monthBeside(month, step) {
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + step, 1)).toISOString().slice(0, 7);
}

export function monthName(month) {
  return new Intl.DateTimeFormat(undefined, { month: "long", year: "numeric", timeZone: "UTC" }).format(new Date(`${month}-01T00:00:00Z`));
}
