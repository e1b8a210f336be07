// What stands behind the canvas for those who do not see it: the window as a real table, and the focused cell in words.

import { byId, table } from "./dom.js";
import { cellText, number, requestName, say } from "./words.js";

const STEPS = 12;
const SLOTS = 64;

/** The window's table: its steps from the focused one, or the clock's, on. */
export function showTable(app, lane) {
  const { run } = lane;
  const from = Math.max(app.focus && app.focus.lane === lane ? app.focus.step : run.newestStep(app.clock.t), 0);
  const steps = Array.from({ length: Math.max(Math.min(STEPS, run.steps - from), 0) }, (_, i) => from + i);
  const { first, count } = lane.rows;
  const slots = Array.from({ length: Math.min(count, SLOTS) }, (_, i) => first + i);
  const rows = slots.map((slot) => [
    say("slot_is", { slot }),
    ...steps.map((step) => cell(run, slot, step)),
  ]);
  const head = [say("slot"), ...steps.map((step) => number(run.step.index[step]))];
  lane.table.replaceChildren(table(say("table_caption", { run: app.nameOf(run) }), head, rows));
}

function cell(run, slot, step) {
  const member = run.member(slot, step);
  if (!member) return say("cell_idle");
  const name = requestName(member.request);
  if (!member.decode) return `${name} ${say("prefill")} ${number(member.computed)}`;
  const text = run.text(member.request, member.token, member.token + member.sampled);
  return text === null ? name : `${name} ${cellText(text)}`;
}

/** Said aloud by a screen reader, once it has changed. */
export function announce(text) {
  const live = byId("live");
  if (live.textContent !== text) live.textContent = text;
}
