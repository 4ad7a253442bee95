// Elements from code. Texts only ever become text nodes and attributes: what somebody has named a run is never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("a", {href: "#/", class: "x", onclick: f}, "text", child)`. Null and false children are left out. */
export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function s(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

/** A table that turns into cards where it is narrow. Columns: `{title, cell, number, wide}`. */
export function table(caption, columns, rows, { empty = "Nothing here yet.", rowClass = null } = {}) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const head = columns.map((each) => h("th", { scope: "col", class: each.number && "number" }, each.title));
  const line = (row) =>
    h("tr", { class: rowClass && rowClass(row) }, columns.map((each) =>
      h("td", { "data-label": each.title, class: [each.number && "number", each.class].filter(Boolean).join(" ") || null }, h("div", { class: "cell" }, each.cell(row)))));
  return h("div", { class: "scroll" },
    h("table", null, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null, head)), h("tbody", null, rows.map(line))));
}

/** A card with a heading. */
export function card(title, ...children) {
  return h("section", { class: "card" }, title && h("h2", null, title), children);
}

/** A word with a colour. */
export function badge(text, kind = "plain") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** How full something is, from 0 to 1. */
export function meter(share, kind, label) {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return s("svg", { class: `meter ${kind}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("rect", { class: "rail", width: 100, height: 6 }), s("rect", { class: "level", width, height: 6 }));
}

/** Ask in a modal dialog. `build(close)` gives its content; resolves to what `close` was called with. */
export function dialog(title, build) {
  return new Promise((resolve) => {
    let result = null;
    const close = (value) => { result = value; box.close(); };
    const box = h("dialog", { "aria-labelledby": "dialog-title" }, h("h2", { id: "dialog-title" }, title), build(close));
    box.addEventListener("close", () => { box.remove(); resolve(result); });
    document.body.append(box);
    box.showModal();
  });
}

/** Whether somebody means it. */
export function confirm(title, text, verb) {
  return dialog(title, (close) => [
    h("p", null, text),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "quiet", onclick: () => close(false) }, "Cancel"),
      h("button", { type: "button", class: "danger", onclick: () => close(true) }, verb)),
  ]);
}

/** A form in a dialog. `fields` are elements made by `field`; `send(values)` may throw, and its message is shown. */
export function formDialog(title, fields, verb, send) {
  return dialog(title, (close) => {
    const problem = h("p", { class: "problem", role: "alert" });
    const button = h("button", { type: "submit" }, verb);
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      problem.textContent = "";
      try {
        close(await send(new FormData(event.target)));
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        button.disabled = false;
      }
    };
    return h("form", { method: "dialog", onsubmit: submit, autocomplete: "off" }, fields, problem,
      h("div", { class: "actions" },
        h("button", { type: "button", class: "quiet", onclick: () => close(null) }, "Cancel"), button));
  });
}

/** A labelled control. */
export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", null, label), control, hint && h("small", null, hint));
}

let waiting = 0;

/** Say something for a few seconds; screen readers say it, too. */
export function notice(text, kind = "plain") {
  const place = document.getElementById("notices");
  const box = h("div", { class: `notice ${kind}` }, text);
  place.append(box);
  if (++waiting > 4) place.firstChild.remove();
  setTimeout(() => { box.remove(); waiting = place.childElementCount; }, kind === "bad" ? 9000 : 4000);
}
