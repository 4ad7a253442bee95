// Charts as SVG. They are drawn once and stretch with their place; arrow keys and the pointer read single values.

import { h, s } from "./dom.js";

const HEIGHT = 100;

/**
 * Bars over time.
 * points: [{label, value, text}] ; `text` is what is read out. marks: labels for the axis, by place.
 */
export function bars(title, points, { axis = [], top = "", now = null } = {}) {
  const highest = Math.max(...points.map((each) => each.value), 0);
  const step = 10;
  const shapes = points.map((each, place) => {
    const tall = highest > 0 ? (each.value / highest) * (HEIGHT - 4) : 0;
    const height = each.value > 0 ? Math.max(tall, 2) : 0.6;
    return s("rect", {
      class: each.value > 0 ? (place === now ? "bar now" : "bar") : "bar none",
      x: place * step + 1, width: step - 2, y: HEIGHT - height, height, rx: 1,
    });
  });
  const cursor = s("rect", { class: "cursor off", x: 0, width: step, y: 0, height: HEIGHT });
  const drawing = s("svg", { viewBox: `0 0 ${Math.max(points.length, 1) * step} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    [0.5, 1].map((share) => s("line", { class: "grid", x1: 0, x2: points.length * step, y1: HEIGHT - share * (HEIGHT - 4), y2: HEIGHT - share * (HEIGHT - 4) })),
    cursor, shapes);
  return frame(title, drawing, points, { axis, top: highest > 0 ? top : "", point: (place) => move(cursor, place, ["x"], step) });
}

/** What was spent up to each step, as a line with an area below; `limit` is drawn across it, `marked` points are dots. */
export function curve(title, points, { axis = [], top = "", limit = null } = {}) {
  const width = Math.max(points.length - 1, 1);
  const last = points.length ? points[points.length - 1].value : 0;
  const highest = Math.max(last, limit !== null && limit <= last * 3 ? limit : 0) || 1;
  const y = (value) => HEIGHT - 2 - (value / highest) * (HEIGHT - 8);
  const line = points.map((each, place) => `${place},${y(each.value).toFixed(2)}`).join(" ");
  const cursor = s("line", { class: "cursor off", x1: 0, x2: 0, y1: 0, y2: HEIGHT });
  const drawing = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("polygon", { class: "area", points: `0,${HEIGHT} ${line} ${width},${HEIGHT}` }),
    s("polyline", { class: "line", points: line }),
    limit !== null && limit <= highest && s("line", { class: "limit", x1: 0, x2: width, y1: y(limit), y2: y(limit) }),
    points.map((each, place) => each.marked && s("line", { class: "mark", x1: place, x2: place, y1: y(each.value), y2: HEIGHT })),
    cursor);
  const point = (place) => move(cursor, place, ["x1", "x2"], 1);
  return frame(title, drawing, points, { axis, top, point, ends: true });
}

function move(cursor, place, names, step) {
  cursor.classList.toggle("off", place < 0);
  for (const name of names) cursor.setAttribute(name, Math.max(place, 0) * step);
}

function frame(title, drawing, points, { axis, top, point, ends = false }) {
  const readout = h("output", { class: "readout" });
  let at = -1;
  const show = (place) => {
    at = Math.max(-1, Math.min(points.length - 1, place));
    point(at);
    readout.textContent = at < 0 ? "" : points[at].text;
  };
  const placeOf = (event) => {
    const box = drawing.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return ends ? Math.round(share * (points.length - 1)) : Math.floor(share * points.length);
  };
  const keys = { ArrowLeft: () => at - 1, ArrowRight: () => at + 1, Home: () => 0, End: () => points.length - 1, Escape: () => -1 };
  const plot = h("div", {
    class: "plot", tabindex: "0", role: "group", "aria-label": `${title}. Arrow keys read single values.`,
    onpointermove: (event) => show(placeOf(event)), onpointerleave: () => show(-1), onblur: () => show(-1),
    onkeydown: (event) => {
      const move = keys[event.key];
      if (move) { event.preventDefault(); show(move()); }
    },
  }, top && h("span", { class: "top" }, top), drawing);
  return h("figure", { class: "chart" }, h("figcaption", null, h("span", null, title), readout), plot,
    axis.length > 0 && h("div", { class: "axis", "aria-hidden": "true" }, axis.map((each) => h("span", null, each))));
}

/** Rows with bars: who or what it was for. rows: [{name, value, text, href, note}] */
export function shares(rows) {
  const highest = Math.max(...rows.map((each) => each.value), 0) || 1;
  return h("ol", { class: "shares" }, rows.map((each) =>
    h("li", null,
      h("div", { class: "share-head" },
        each.href ? h("a", { href: each.href, class: "name" }, each.name) : h("span", { class: "name" }, each.name),
        h("span", { class: "amount" }, each.note && h("small", null, each.note), each.text)),
      s("svg", { class: "meter plain", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
        s("rect", { class: "rail", width: 100, height: 6 }),
        s("rect", { class: "level", width: Math.max((each.value / highest) * 100, each.value > 0 ? 0.6 : 0), height: 6 })))));
}
