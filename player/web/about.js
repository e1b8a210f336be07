// Where a page comes from: provenance, digests, every figure with its query, and how to check all of it.

import { byId, element, facts, table } from "./dom.js";
import { has, oneLine, say } from "./words.js";

/** Fill the dialog for the runs that are shown. */
export function fillAbout(app) {
  byId("about-body").replaceChildren(
    element("p", {}, say("about_what", { made_with: app.data.made_with })),
    element("p", {}, say("about_verify")),
    element("pre", {}, `tracereel verify ${say("about_file")} --trace ${say("about_traces")}`),
    ...app.lanes.flatMap(({ run }) => [
      element("h3", {}, app.nameOf(run)),
      ...run.facts.notes.map((note) => element("p", { class: "note" }, oneLine(note))),
      figures(app, run.facts.figures, run),
      element("h4", {}, say("provenance")),
      facts([[say("trace_digest"), element("code", {}, run.facts.digest)], ...flat(run.facts.provenance)]),
    ]),
    ...app.data.pairs
      .filter((pair) => app.lanes.length > 1 && pairShown(app, pair))
      .map((pair) => figures(app, pair.figures, null)),
  );
}

function pairShown(app, pair) {
  const [first, second] = app.lanes.map((lane) => lane.run.facts.group);
  return pair.numerator === second && pair.denominator === first && pair.figures.length > 0;
}

function figures(app, all, run) {
  const known = all.filter((figure) => figure.value !== null);
  const caption = run ? say("figures_of", { run: app.nameOf(run) }) : say("figures_of_both");
  const rows = known.map((figure) => [labelOf(figure), figure.shown, figure.definition, query(figure)]);
  return element("div", { class: "scroll" }, table(caption, [say("figure"), say("value"), say("definition"), say("query")], rows));
}

/** A metric that the catalogue has no words for, such as one of the reader's own, is called by its name. */
function labelOf({ label, args }) {
  return has(label) ? say(label, args) : label.replace(/^metric_/, "");
}

function query(figure) {
  const args = Object.entries(figure.args).map(([name, value]) => `${name}=${value}`);
  return `${figure.query}(${args.join(", ")})`;
}

/** The header's fields by their paths, as the trace names them. */
function flat(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, oneLine(String(value))]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}
