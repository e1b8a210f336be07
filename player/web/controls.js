// The buttons and choices above the runs, in the reader's language.

import { FACTORS } from "./clock.js";
import { byId, element, openDialog } from "./dom.js";
import { number, say, speak } from "./words.js";

const BUTTONS = [
  ["play", " ", (app) => app.clock.toggle()],
  ["previous-step", ",", (app) => app.jump("previous", "step")],
  ["next-step", ".", (app) => app.jump("next", "step")],
  ["next-admission", "A", (app) => app.jump("next", "admission")],
  ["next-finish", "F", (app) => app.jump("next", "finish")],
  ["next-preemption", "E", (app) => app.jump("next", "preemption")],
  ["slowest-step", "S", (app) => app.visit("slowestStep")],
  ["longest-wait", "W", (app) => app.visit("longestWait")],
  ["worst-pause", "G", (app) => app.visit("worstPause")],
  ["zoom-in", "+", (app) => app.zoom(0.5)],
  ["zoom-out", "-", (app) => app.zoom(2)],
  ["fewer-slots", "V", (app) => app.zoomRows(0.5)],
  ["more-slots", "Shift+V", (app) => app.zoomRows(2)],
  ["whole", "0", (app) => app.whole()],
  ["axis", "T", (app) => app.turnAxis()],
  ["theme", null, (app) => app.theme.next()],
  ["language", null, (app) => app.turnLanguage()],
  ["save-svg", null, (app) => app.save("svg")],
  ["save-png", null, (app) => app.save("png")],
  ["copy-link", null, (app) => app.copyLink()],
  ["open-film", null, (app) => app.showFilm()],
  ["open-help", "?", () => openDialog("help")],
  ["open-about", null, (app) => app.showAbout()],
];

/** Connect every control with what it does. */
export function connect(app) {
  for (const [id, key, act] of BUTTONS) {
    const button = byId(id);
    button.addEventListener("click", () => act(app));
    if (key) button.setAttribute("aria-keyshortcuts", key === " " ? "Space" : key);
  }
  byId("speed").addEventListener("change", (event) => app.setFactor(Number(event.target.value)));
  for (const place of ["first-run", "second-run"]) byId(place).addEventListener("change", () => app.choose());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  }
}

/** Write all words of the page in a language. */
export function write(app) {
  speak(app.language, app.data.words[app.language]);
  document.documentElement.lang = app.language;
  for (const target of document.querySelectorAll("[data-say]")) target.textContent = say(target.dataset.say);
  for (const target of document.querySelectorAll("[data-label]")) {
    const key = target.getAttribute("aria-keyshortcuts");
    target.setAttribute("aria-label", say(target.dataset.label));
    target.title = say(target.dataset.label) + (key ? ` (${key})` : "");
  }
  writeSpeeds(app);
  writeRuns(app);
  byId("keys").replaceChildren(
    ...BUTTONS.filter(([, key]) => key).map(([id, key]) =>
      element("li", {}, element("kbd", {}, key === " " ? say("key_space") : key), ` ${say(id.replaceAll("-", "_"))}`),
    ),
    element("li", {}, element("kbd", {}, "[ ]"), ` ${say("speed")}`),
    element("li", {}, element("kbd", {}, "← → ↑ ↓"), ` ${say("key_arrows")}`),
    element("li", {}, element("kbd", {}, "Enter"), ` ${say("key_enter")}`),
    element("li", {}, element("kbd", {}, "Esc"), ` ${say("close_request")}`),
  );
}

function writeSpeeds(app) {
  byId("speed").replaceChildren(
    ...FACTORS.map((factor) => element("option", { value: String(factor), selected: factor === app.clock.factor }, factorText(factor))),
  );
}

/** A factor as the films declare it: slower or faster than measured. */
export function factorText(factor) {
  if (factor === 1) return say("clock_even");
  const shown = factor < 1 ? 1 / factor : factor;
  return say(factor < 1 ? "clock_slower" : "clock_faster", { factor: number(shown, shown < 10 && shown % 1 ? 1 : 0) });
}

function writeRuns(app) {
  const options = (chosen) =>
    app.data.runs.map((run) =>
      element("option", { value: run.key, selected: run.key === chosen }, app.nameOf({ facts: run }) + (isMedian(app, run) ? ` · ${say("median_run")}` : "")),
    );
  const [first, second] = app.lanes.map((lane) => lane.run.facts.key);
  byId("first-run").replaceChildren(...options(first));
  byId("second-run").replaceChildren(element("option", { value: "", selected: !second }, say("no_second")), ...options(second));
  byId("second-run").closest("label").hidden = app.data.runs.length < 2;
  byId("first-run").closest("label").hidden = app.data.runs.length < 2;
}

function isMedian(app, run) {
  return run.median && app.data.runs.some((other) => other !== run && other.group === run.group);
}
