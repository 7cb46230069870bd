// Elements out of values. Text is only ever text: nothing here, and nothing anywhere else, parses HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined).map(node));
  return made;
}

function node(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

// Puts new children into a place, and the focus where it was: on what has the same data-key.
export function replace(place, ...children) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  place.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined).map(node));
  if (key !== undefined) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

// `columns` are {label, value(row), number}; the first one heads its row.
export function table(caption, columns, rows, whenEmpty) {
  if (!rows.length) return element("p", { class: "soft" }, whenEmpty);
  const classes = (column) => ({ class: column.number ? "number" : null });
  const head = columns.map((column) => element("th", { scope: "col", ...classes(column) }, column.label));
  const body = rows.map((row) =>
    element("tr", {}, columns.map((column, place) =>
      element(place ? "td" : "th", { scope: place ? null : "row", ...classes(column) }, column.value(row)))));
  return element("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0, "data-key": `table ${caption}` },
    element("table", {}, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

export function facts(entries) {
  return element("dl", { class: "facts" },
    entries.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export function button(label, key, action, attributes = {}) {
  return element("button", { type: "button", "data-key": key, onclick: action, ...attributes }, label);
}

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? value.toLocaleString("en") : Number(value.toPrecision(digits)).toString();
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1000) return `${value} B`;
  const rank = Math.min(UNITS.length - 1, Math.floor(Math.log10(value / 0.99995) / 3));
  return `${(value / 1000 ** rank).toFixed(1)} ${UNITS[rank]}`;
}

export function moment(seconds) {
  return new Date(1000 * seconds).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
}

// What `tasks show` says beside the columns: values, lists and tables of any depth, as words.
export function words(value) {
  if (value === null || value === "") return "–";
  if (Array.isArray(value)) return value.length ? element("ul", {}, value.map((each) => element("li", {}, words(each)))) : "none";
  if (typeof value === "object") return facts(Object.entries(value).map(([name, each]) => [name.replaceAll("_", " "), words(each)]));
  if (typeof value === "number") return number(value);
  return String(value);
}
