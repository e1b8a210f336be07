// From here to a film: the command that renders the stretch in view.

import { byId, element } from "./dom.js";
import { announce } from "./table.js";
import { say } from "./words.js";

/** So many slots can be lettered in a film. */
const MOST_SLOTS = 12;

/** The command that renders the stretch in view of the focused cell's run, or of the first. */
export function filmCommand(app) {
  const lane = app.active;
  const { run, axis } = lane;
  const [from, to] = [app.view.from, app.view.to].map((x) => Math.max(0, Math.min(axis.time(x), run.endNs)));
  const first = Math.max(0, Math.min((app.focus?.slot ?? 0) - MOST_SLOTS / 2, run.slots - MOST_SLOTS));
  const last = Math.min(first + MOST_SLOTS, run.slots) - 1;
  // Microseconds: finer than any step, and short enough to be read. Outwards, so that an end keeps its instant.
  const [begin, end] = [Math.floor((from + run.facts.begin_ns) / 1e3), Math.ceil((to + run.facts.begin_ns) / 1e3)];
  const stretch = `--from ${seconds(begin)} --to ${seconds(Math.max(end, begin + 1))} --slots ${first}-${last}`;
  return `tracereel render decode_batching --device ${run.facts.device} --run ${run.facts.key} ${stretch}`;
}

function seconds(microseconds) {
  return (microseconds / 1e6).toFixed(6).replace(/\.?0+$/, "");
}

/** Fill the dialog for what is in view. */
export function fillFilm(app) {
  const command = filmCommand(app);
  const copied = () => announce(say("command_copied"));
  const copy = () => navigator.clipboard?.writeText(command).then(copied, () => {});
  byId("film-body").replaceChildren(
    element("p", {}, say("film_what")),
    element("pre", {}, command),
    element("button", { type: "button", id: "copy-command", onclick: copy }, say("copy_command")),
    element("p", {}, say("film_where")),
  );
}
