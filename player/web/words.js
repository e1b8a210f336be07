// Words in the reader's language, and figures and quotations as they are set on screen.

let catalogue = {};
let language = "en";

export function speak(name, words) {
  language = name;
  catalogue = words;
}

export function languageName() {
  return language;
}

/** The words of a key with values in their {places}. */
export function say(key, values = {}) {
  const text = catalogue[key];
  if (text === undefined) throw new Error(`no words for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

export function has(key) {
  return key in catalogue;
}

/** How a request is called on screen, as in the films: R1, R2, ... in the order of arrival. */
export function requestName(request) {
  return `R${request + 1}`;
}

/** A number with so many digits after the point, thousands apart, a true minus. */
export function number(value, digits = 0) {
  const [whole, rest] = Math.abs(value).toFixed(digits).split(".");
  const apart = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  const sign = value < 0 && Number(value.toFixed(digits)) !== 0 ? "\u2212" : "";
  return sign + apart + (rest ? `.${rest}` : "");
}

export function signed(value, digits = 0) {
  return (value > 0 ? "+" : "") + number(value, digits);
}

/** Nanoseconds as seconds or milliseconds, three digits that say something. */
export function duration(ns) {
  if (ns === null) return say("absent");
  if (ns >= 1e9) return `${number(ns / 1e9, ns >= 1e11 ? 0 : 2)} s`;
  return `${number(ns / 1e6, ns >= 1e8 ? 0 : ns >= 1e7 ? 1 : ns >= 1e6 ? 2 : 3)} ms`;
}

const SIGNS = { "\n": "↵ ", "\r": "", "\t": " ", "\u00a0": " " };

/** Text on one line: what cannot be seen, or would turn the line around, is shown by a sign. As in the films. */
export function oneLine(text) {
  return text.replace(/[\p{C}\p{Z}]/gu, (mark) => (mark === " " ? mark : (SIGNS[mark] ?? "·")));
}

/** A token in a cell. */
export function cellText(text) {
  return oneLine(text).trim() || (text ? "␣" : "∅");
}

/** Text in a paragraph: lines stay lines. */
export function quotation(text) {
  return text.replace(/\r\n?/g, "\n").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (mark) => ("\n\t".includes(mark) ? mark : "·"));
}
