// Making elements. Text goes in as text, never as markup.

/** An element with attributes (`on` + event: a listener) and children: elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A table of rows; the first of `head` and of each row is a heading. */
export function table(caption, head, rows, attributes = {}) {
  return element(
    "table",
    attributes,
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element(
      "tbody",
      {},
      ...rows.map(([first, ...rest]) =>
        element("tr", {}, element("th", { scope: "row" }, first), ...rest.map((text) => element("td", {}, text))),
      ),
    ),
  );
}

/** Terms and what is said of them. */
export function facts(pairs) {
  return element("dl", {}, ...pairs.flatMap(([term, ...said]) => [
    element("dt", {}, term),
    element("dd", {}, ...said),
  ]));
}

/** Give a panel new children where what they are made from has changed: `key` says what that is. */
export function refill(panel, key, make) {
  if (panel.dataset.key === key) return;
  panel.dataset.key = key;
  panel.replaceChildren(...make());
}

/** Open a dialog at its beginning: without this the browser goes to its first button, which is the last thing in it. */
export function openDialog(id) {
  byId(id).showModal();
  byId(id).querySelector("h2").focus();
}

export function byId(id) {
  return document.getElementById(id);
}
