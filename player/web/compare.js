// Two runs on one clock: their difference at this instant, and what Python measured over all repeats.

import { byId, element, refill, table } from "./dom.js";
import { number, requestName, say, signed } from "./words.js";

const COUNTS = [
  ["output_tokens", (run, t) => run.outputTokens(t)],
  ["finished", (run, t) => run.finishedCount(t)],
  ["waiting", (run, t) => run.waitingCount(t)],
  ["running", (run, t) => run.runningCount(t)],
];

/** What both runs have at t: [{key, first, second, difference}]. */
export function differences(first, second, t) {
  return COUNTS.map(([key, count]) => {
    const [one, other] = [count(first, t), count(second, t)];
    return { key, first: one, second: other, difference: other - one };
  });
}

/** Show the difference of the second run to the first. */
export function showDifference(app) {
  const panel = byId("difference");
  panel.hidden = app.lanes.length < 2;
  if (panel.hidden) return;
  const [first, second] = app.lanes.map((lane) => lane.run);
  const found = differences(first, second, app.clock.t);
  const key = [app.language, first.facts.key, second.facts.key, app.selected?.request, ...found.flatMap(Object.values)];
  refill(panel, key.join(), () => differenceOf(app, first, second, found));
}

function differenceOf(app, first, second, found) {
  const lead = found[0].difference;
  const ahead = lead === 0 ? say("ahead_none") : say("ahead", { run: app.nameOf(lead > 0 ? second : first), tokens: number(Math.abs(lead)) });
  const rows = found.map((row) => [say(row.key), number(row.first), number(row.second), signed(row.difference)]);
  return [
    element("h2", {}, say("difference")),
    element("p", { class: "ahead" }, ahead),
    table(say("difference_caption"), [say("at_this_time"), app.nameOf(first), app.nameOf(second), say("change")], rows),
    ratioLine(app, first, second),
    ...selectedLine(app, first, second),
  ];
}

function ratioLine(app, first, second) {
  const pair = app.data.pairs.find(
    ({ numerator, denominator }) => numerator === second.facts.group && denominator === first.facts.group,
  );
  if (!pair) return element("p", { class: "ratio" }, say("ratio_same_case"));
  if (!pair.figures.length) {
    const why = pair.refused ? say("not_comparable", { field: pair.refused }) : say("no_ratio");
    return element("p", { class: "ratio" }, why);
  }
  const of = (label) => pair.figures.find((figure) => figure.label === `figure_${label}`).shown;
  const key = { 0: "ratio_of_medians", 1: "ratio_of_one_pair" }[of("ratio_pairs")] ?? "ratio";
  const facts = {
    ratio: of("ratio_median"),
    low: of("ratio_low"),
    high: of("ratio_high"),
    pairs: of("ratio_pairs"),
    first: app.caseOf(first),
    second: app.caseOf(second),
  };
  return element("p", { class: "ratio" }, say(key, facts));
}

/** The selected request in both runs, where both hold it under the same name. */
function selectedLine(app, first, second) {
  if (!app.selected) return [];
  const id = app.selected.lane.run.ids[app.selected.request];
  const [one, other] = [first, second].map((run) => run.ids.indexOf(id));
  if (one < 0 || other < 0) return [];
  const t = app.clock.t;
  const facts = {
    request: requestName(app.selected.request),
    first: number(first.outputTokensOf(one, t)),
    second: number(second.outputTokensOf(other, t)),
  };
  return [element("p", {}, say("same_request", facts))];
}
