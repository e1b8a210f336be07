// The panel next to the slots: the step and cell that are looked at, and one request's whole life.

import { byId, element, facts, refill } from "./dom.js";
import { cellSentence, lifeOf, stepFacts } from "./why.js";
import { duration, number, quotation, requestName, say } from "./words.js";

/** Show each run's step at the clock, or the focused one while the clock is held. */
export function showSteps(app) {
  const shown = app.lanes.map((lane) => ({ lane, ...whatOf(app, lane) }));
  const key = shown.map(({ lane, cell, step, over }) => [lane.run.facts.key, cell?.slot, step, over].join()).join(";");
  refill(byId("step-facts"), `${app.language};${key}`, () => shown.flatMap((what) => stepOf(app, what)));
}

function whatOf(app, lane) {
  const cell = !app.clock.playing && app.focus?.lane === lane ? app.focus : null;
  const step = cell ? cell.step : lane.run.newestStep(app.clock.t);
  return { cell, step, over: !cell && app.clock.t > lane.run.endNs };
}

function stepOf(app, { lane, cell, step, over }) {
  const { run } = lane;
  const name = app.lanes.length > 1 ? [element("p", { class: "of-run" }, app.nameOf(run))] : [];
  if (step < 0) return [...name, element("p", {}, say("no_step_yet"))];
  if (over) return [...name, element("p", {}, say("run_over"))];
  const sentence = cell ? [element("p", { class: "cell" }, cellSentence(run, cell.slot, cell.step))] : [];
  return [...name, ...sentence, facts(stepFacts(run, step, app.data.bounds))];
}

/** A request's life; its answer grows with the clock. */
export class RequestPanel {
  constructor(app) {
    this.app = app;
    this.panel = byId("request");
    this.shown = "";
  }

  /** Bring the panel up to the clock; `selected` is {lane, request} or null. */
  show(selected, t) {
    byId("request-hint").hidden = Boolean(selected);
    this.panel.hidden = !selected;
    if (!selected) {
      this.shown = "";
      return;
    }
    const { lane, request } = selected;
    const key = `${lane.run.facts.key}/${request}/${this.app.language}`;
    if (this.shown !== key) this.#build(lane.run, request);
    this.shown = key;
    this.#update(lane.run, request, t);
  }

  #build(run, request) {
    this.events = lifeOf(run, request).map((event) => ({
      ...event,
      line: element(
        "li",
        {},
        element("button", { type: "button", class: "instant", onclick: () => this.app.goTo(event.at) }, duration(event.at)),
        ` ${event.text}`,
      ),
    }));
    const prompt = run.prompts[request];
    this.answer = element("p", { class: "quote", dir: "auto", lang: "und" });
    this.count = element("p", { class: "count" });
    this.panel.replaceChildren(
      element(
        "h3",
        {},
        element("span", { class: "swatch", "data-colour": String(run.request.colour[request]) }),
        say("request_is", { request: requestName(request) }),
        element("button", { type: "button", class: "close", "aria-label": say("close_request"), onclick: () => this.app.select(null) }, "×"),
      ),
      element("p", { class: "id" }, quotation(run.ids[request])),
      element("ol", { class: "life" }, ...this.events.map((event) => event.line)),
      element("h4", {}, say("prompt")),
      element("p", { class: "quote", dir: "auto", lang: "und" }, prompt === null ? say("text_unknown") : quotation(prompt)),
      element("h4", {}, say("answer")),
      this.count,
      this.answer,
    );
    this.panel.querySelector(".swatch").style.background = this.app.theme.palette.requests[run.request.colour[request]];
  }

  #update(run, request, t) {
    for (const { at, line } of this.events) line.classList.toggle("future", at > t);
    const tokens = run.outputTokensOf(request, t);
    const all = run.firstToken[request + 1] - run.firstToken[request];
    this.count.textContent = say("tokens_of", { tokens: number(tokens), all: number(all) });
    const text = run.text(request, 0, tokens);
    this.answer.textContent = text === null ? say("text_unknown") : quotation(text);
  }
}
