// From here to a film and back: the command that renders the stretch in view, and the seconds of a film of these runs.

import { byId, element } from "./dom.js";
import { announce } from "./table.js";
import { number, say } from "./words.js";

/** So many slots can be lettered in a film. */
const MOST_SLOTS = 12;

/** The command that renders the stretch in view of the focused cell's run, or of the first. */
export function filmCommand(app) {
  const lane = app.active;
  const { run, axis } = lane;
  const [from, to] = [app.view.from, app.view.to].map((x) => Math.max(0, Math.min(axis.time(x), run.endNs)));
  const { rows } = lane;
  const around = (app.focus?.slot ?? rows.first) - MOST_SLOTS / 2;
  const first = Math.max(rows.first, Math.min(around, rows.end - MOST_SLOTS));
  const last = Math.min(first + MOST_SLOTS, rows.end) - 1;
  // Microseconds: finer than any step, and short enough to be read. Outwards, so that an end keeps its instant.
  const [begin, end] = [Math.floor((from + run.facts.begin_ns) / 1e3), Math.ceil((to + run.facts.begin_ns) / 1e3)];
  const stretch = `--from ${seconds(begin)} --to ${seconds(Math.max(end, begin + 1))} --slots ${first}-${last}`;
  return `tracereel render decode_batching --device ${run.facts.device} --run ${run.facts.key} ${stretch}`;
}

function seconds(microseconds) {
  return (microseconds / 1e6).toFixed(6).replace(/\.?0+$/, "");
}

/** The second at which the film shows this instant of one of the lanes' runs first; null where it does not. */
export function filmSecond(app) {
  for (const { run } of app.lanes) {
    const ns = app.clock.t + run.facts.begin_ns;
    const found = app.data.film?.passages.find(
      ({ digest, from_ns, to_ns }) => digest === run.facts.digest && from_ns <= ns && ns <= to_ns,
    );
    if (!found) continue;
    const share = found.to_ns > found.from_ns ? (ns - found.from_ns) / (found.to_ns - found.from_ns) : 0;
    return found.from_s + share * (found.to_s - found.from_s);
  }
  return null;
}

/** What the film shows at a second, or next: {digest, seconds} of engine time; null where the page has no such run. */
export function filmInstant(data, second) {
  const found = data.film?.passages.find(({ to_s }) => second <= to_s);
  if (!found) return null;
  const share = found.to_s > found.from_s ? Math.max(0, (second - found.from_s) / (found.to_s - found.from_s)) : 0;
  return { digest: found.digest, seconds: (found.from_ns + share * (found.to_ns - found.from_ns)) / 1e9 };
}

/** A second of film as a player of films shows it: minutes and seconds. */
export function filmTime(second) {
  const tenths = Math.round(second * 10);
  const rest = number((tenths % 600) / 10, 1);
  return `${Math.floor(tenths / 600)}:${rest.padStart(4, "0")}`;
}

/** Show the film's second next to the clock. */
export function showFilmSecond(app) {
  const second = filmSecond(app);
  byId("film-second").textContent = second === null ? "" : say("film_second", { second: filmTime(second) });
}

function chapters(app) {
  if (!app.data.film) return [];
  const items = app.data.film.chapters.map(({ title, from_s }) => {
    const go = () => (byId("film").close(), app.openFilmSecond(from_s));
    return element("li", {}, element("button", { type: "button", onclick: go }, `${filmTime(from_s)} ${title}`));
  });
  return [element("h3", {}, say("film_chapters", { film: app.data.film.name })), element("ol", { id: "chapters" }, ...items)];
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
    ...chapters(app),
  );
}
