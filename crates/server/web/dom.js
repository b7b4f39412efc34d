// Making elements. Whatever comes from an item enters as text, never as HTML.

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (`data-…`, `aria-…`) and listeners (`on…`), and children. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A list of names and values. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, known.map(([name, value]) =>
    [h("dt", {}, name), h("dd", {}, value instanceof Node ? value : String(value))]));
}

/** Shows an error, with a way to try again if there is one. */
export function showError(place, error, retry) {
  place.replaceChildren(error.message);
  if (retry) place.append(h("button", { type: "button", onclick: retry }, "Try again"));
  place.hidden = false;
}

/** Shows what the server warns of, or nothing. */
export function showWarnings(place, warnings = []) {
  place.replaceChildren(...warnings.map((text) => h("li", {}, text.charAt(0).toUpperCase() + text.slice(1))));
  place.hidden = warnings.length === 0;
}

export function clearError(place) {
  place.replaceChildren();
  place.hidden = true;
}

/** Tiles that stand for what is on its way. */
export const ghosts = (tag, count) =>
  Array.from({ length: count }, () => h(tag, { class: "ghost", "aria-hidden": "true" }));

export const number = (value) => new Intl.NumberFormat("en").format(value);

/** Bytes for people. */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${bytes < 10 && at ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}
