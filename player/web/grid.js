// Slots against time: a cell is a step with its token, from afar a bar is a request, from further a pixel many steps.

import { ABSENT } from "./run.js";
import { cellText, requestName } from "./words.js";

/** Narrower cells are not distinguished. */
const LEAST_CELL = 5;
const LEAST_LETTERED = { width: 15, height: 13 };
/** More spans than these in view are drawn by tiles. */
const MOST_SPANS = 6000;

/** Paints one run's slots. `box` is {x, y, width, height}, `look` {palette, tiles, rows, t, focus, request}. */
export function paintGrid(surface, run, axis, view, box, look) {
  const scene = { surface, run, axis, view, box, look, scale: box.width / view.width, row: box.height / look.rows.count };
  surface.rect(box.x, box.y, box.width, box.height, look.palette.panel);
  let whole = true;
  surface.clipped(box.x, box.y, box.width, box.height, () => {
    const [first, last] = axis.steps(view.from, view.to);
    const spans = countSpans(run, look.rows, first, last);
    if (spans > MOST_SPANS) whole = look.tiles.paint(surface, view, { ...box, y: top(scene, 0), height: run.slots * scene.row });
    else paintRows(scene, first, last);
    paintLines(scene);
    paintFuture(scene);
    if (look.focus) paintFocus(scene, look.focus);
  });
  return whole;
}

function countSpans(run, rows, first, last) {
  if (last <= first) return 0;
  let count = 0;
  for (let slot = rows.first; slot < rows.end; slot++) {
    const { steps, from, to } = ordinals(run, slot, first, last);
    if (steps) count += run.firstSpanAfter(slot, to) - run.firstSpanAfter(slot, from);
  }
  return count;
}

/** The ordinals, among the steps of the slot's replica, that lie in the steps `first` to `last` of the file. */
function ordinals(run, slot, first, last) {
  const { steps } = run.replicas[run.replicaOfSlot[slot]];
  if (!steps.length) return { steps: 0, from: 0, to: 0 };
  if (run.replicas.length === 1) return { steps: last - first, from: first, to: last - 1 };
  let from = 0;
  while (from < steps.length && steps[from] < first) from++;
  let to = from;
  while (to < steps.length && steps[to] < last) to++;
  return { steps: to - from, from, to: to - 1 };
}

function paintRows(scene, first, last) {
  const { run, look } = scene;
  for (let slot = look.rows.first; slot < look.rows.end; slot++) {
    const { steps, from, to } = ordinals(run, slot, first, last);
    if (!steps) continue;
    paintIdle(scene, slot, from, to);
    const { order, bounds } = run.spansOfSlot;
    const begin = Math.max(run.firstSpanAfter(slot, from) - 1, bounds[slot]);
    for (let at = begin; at < bounds[slot + 1] && run.spanOrdinal[order[at]] <= to; at++) {
      paintSpan(scene, slot, order[at], from, to);
    }
    if (meanColumn(scene, first, last) < LEAST_LETTERED.width) paintNames(scene, slot, first, last);
  }
}

function meanColumn({ axis, scale }, first, last) {
  return ((axis.column(last - 1)[1] - axis.column(first)[0]) * scale) / (last - first);
}

function x(scene, value) {
  return scene.box.x + (value - scene.view.from) * scene.scale;
}

/** The upper edge of a slot's row. */
function top(scene, slot) {
  return scene.box.y + (slot - scene.look.rows.first) * scene.row;
}

function paintIdle(scene, slot, from, to) {
  const { surface, run, axis, row, look } = scene;
  const { steps } = run.replicas[run.replicaOfSlot[slot]];
  const left = x(scene, axis.column(steps[from])[0]);
  const right = x(scene, axis.column(steps[to])[1]);
  const gap = row > 6 ? 1 : 0;
  surface.rect(left, top(scene, slot) + gap, right - left, row - 2 * gap, look.palette.idle_slot);
}

function paintSpan(scene, slot, span, from, to) {
  const { surface, run, axis, row, look } = scene;
  const { steps } = run.replicas[run.replicaOfSlot[slot]];
  const begin = Math.max(run.spanOrdinal[span], from);
  const end = Math.min(run.spanOrdinal[span] + run.span.length[span] - 1, to);
  if (end < begin) return;
  const left = x(scene, axis.column(steps[begin])[0]);
  const right = x(scene, axis.column(steps[end])[1]);
  const gap = row > 6 ? 1 : 0;
  const request = run.span.request[span];
  const alpha = look.request === null || look.request === request ? 1 : 0.3;
  const colour = look.palette.requests[run.request.colour[request]];
  const high = top(scene, slot) + gap;
  const height = row - 2 * gap;
  // A bar narrower than a pixel would vanish.
  const width = Math.max(right - left, 0.7);
  surface.rect(left, high, width, height, look.palette.panel);
  surface.rect(left, high, width, height, colour, alpha);
  if (!run.span.decode[span]) paintPrefill(surface, left, high, width, height, look.palette, alpha);
  if ((right - left) / (end - begin + 1) >= LEAST_CELL) paintCells(scene, span, begin, end, high, height, alpha);
  else if (begin === run.spanOrdinal[span] && startsStay(run, span)) surface.rect(left, high, 1, height, look.palette.ground);
}

/** Prefill is shown by its colour and by its hatching, the request's colour left as a strip below. */
function paintPrefill(surface, left, top, width, height, palette, alpha) {
  const high = height * 0.72;
  surface.rect(left, top, width, high, palette.prefill, alpha);
  if (width < 4 || high < 5) return;
  for (let i = 4 - high; i < width; i += 5) {
    const from = Math.max(i, 0);
    const to = Math.min(i + high, width);
    surface.line([[left + from, top + high - (from - i)], [left + to, top + high - (to - i)]], palette.panel, 1);
  }
}

/** In a row of bars the requests' names, each over its whole stay, where they fit. */
function paintNames(scene, slot, first, last) {
  const { run, axis, box, row, look } = scene;
  const { order, bounds } = run.staysOfSlot;
  for (let at = bounds[slot]; at < bounds[slot + 1]; at++) {
    const stay = order[at];
    const end = run.stay.last_step[stay] === ABSENT ? run.steps - 1 : run.stay.last_step[stay];
    if (end < first || run.stay.first_step[stay] >= last || end < run.stay.first_step[stay]) continue;
    const left = Math.max(x(scene, axis.column(run.stay.first_step[stay])[0]), box.x);
    const right = Math.min(x(scene, axis.column(end)[1]), box.x + box.width);
    const request = run.stay.request[stay];
    const alpha = look.request === null || look.request === request ? 1 : 0.3;
    label(scene, requestName(request), left + 4, top(scene, slot), row, right - left - 6, alpha);
  }
}

function startsStay(run, span) {
  const stay = run.stayOfSlot(run.span.slot[span], run.step.start[run.span.step[span]]);
  return stay !== ABSENT && run.stay.first_step[stay] === run.span.step[span];
}

function label(scene, text, left, top, height, room, alpha) {
  const { surface, look } = scene;
  const size = Math.min(12, height - 4);
  if (size < 8 || alpha < 1 || surface.textWidth(text, size, 600) > room) return;
  surface.text(text, left, top + height / 2 + size * 0.36, { size, fill: look.palette.ink, weight: 600 });
}

function paintCells(scene, span, begin, end, top, height, alpha) {
  const { surface, run, axis, look } = scene;
  const { steps } = run.replicas[run.replicaOfSlot[run.span.slot[span]]];
  for (let ordinal = begin; ordinal <= end; ordinal++) {
    const [from, to] = axis.column(steps[ordinal]);
    const left = x(scene, from);
    const width = x(scene, to) - left;
    const first = ordinal === run.spanOrdinal[span] && startsStay(run, span);
    const next = ordinal < end ? x(scene, axis.column(steps[ordinal + 1])[0]) : left + width;
    // Between two steps no step runs: the ground shows, at least as a line.
    surface.rect(left + width - 1, top, Math.max(next - left - width, 0) + 1, height, look.palette.panel);
    if (width < LEAST_LETTERED.width || height < LEAST_LETTERED.height || alpha < 1) continue;
    const size = Math.min(13, height * 0.62);
    const { text, weight } = lettering(run, span, ordinal - run.spanOrdinal[span], first);
    const shown = cut(surface, text, size, weight, width - 5);
    surface.text(shown, left + 2.5, top + height / 2 + size * 0.36, { size, fill: look.palette.ink, weight });
  }
}

function lettering(run, span, k, first) {
  const request = run.span.request[span];
  if (first) return { text: requestName(request), weight: 700 };
  const sampled = run.span.sampled[span];
  const token = run.tokensBefore[span] + k * sampled;
  const text = run.text(request, token, token + sampled);
  return { text: text === null ? "·" : cellText(text), weight: 400 };
}

function cut(surface, text, size, weight, room) {
  if (surface.textWidth(text, size, weight) <= room) return text;
  let length = Math.min(text.length, Math.ceil(room / (size * 0.3)));
  while (length > 0 && surface.textWidth(`${text.slice(0, length)}…`, size, weight) > room) length--;
  return length ? `${text.slice(0, length).toWellFormed()}…` : "";
}

function paintLines(scene) {
  const { surface, box, row, look } = scene;
  if (row < 5) return;
  for (let slot = look.rows.first + 1; slot < look.rows.end; slot++) {
    const y = top(scene, slot);
    surface.line([[box.x, y], [box.x + box.width, y]], look.palette.ground, row > 6 ? 2 : 1);
  }
}

/** What has not happened yet at the clock's time is there, faintly. */
function paintFuture(scene) {
  const { surface, axis, box, look } = scene;
  const now = Math.max(x(scene, axis.x(look.t)), box.x);
  if (now < box.x + box.width) {
    surface.rect(now, box.y, box.x + box.width - now, box.height, look.palette.ground, 0.62);
  }
}

function paintFocus(scene, { slot, step }) {
  const { surface, axis, run, row, look } = scene;
  if (slot >= run.slots || step < 0 || step >= run.steps) return;
  const [from, to] = axis.column(step);
  const left = x(scene, from);
  const width = Math.max(x(scene, to) - left, 4);
  surface.frame(left - 1.5, top(scene, slot) - 0.5, width + 3, row + 1, look.palette.ground, 5);
  surface.frame(left - 1.5, top(scene, slot) - 0.5, width + 3, row + 1, look.palette.text, 2);
}
