// The bands below the slots, on the same axis: queue, batch size, KV blocks, tokens a second, and what bound each step.

import { BY_TIME, clamp } from "./axis.js";
import { sums } from "./search.js";
import { number, say } from "./words.js";

const BOUND_HEIGHT = 16;
const COLOUR_OF_BOUND = {
  nobody_waiting: "dim",
  slots: "decode",
  token_budget: "prefill",
  kv_blocks: "same_position",
  policy: "static",
  kv_loading: "transformers",
  unknown: "line",
};

/** What a run's bands show; made once a run. */
export class Bands {
  constructor(run, bounds, bandHeight) {
    Object.assign(this, { run, bounds, bandHeight });
    const { waiting, batch, kv } = run.series;
    this.lines = [
      { key: "band_waiting", extent: waiting, top: top(waiting, run), colour: "static" },
      { key: "band_batch", extent: batch, top: run.slots, colour: "decode" },
    ];
    if (kv) this.lines.push({ key: "band_kv", extent: kv, top: run.facts.kv_blocks ?? top(kv, run), colour: "same_position" });
    this.boundCodes = [...new Set(run.step.bound)].sort();
    this.boundSums = {};
  }

  get height() {
    return (this.lines.length + 1) * this.bandHeight + BOUND_HEIGHT;
  }

  /** Paint all bands; `look` is {palette, t}. */
  paint(surface, axis, view, box, look) {
    const pixels = columnsOf(this.run, axis, view, box);
    let y = box.y;
    for (const line of this.lines) {
      const one = { ...box, y, height: this.bandHeight - 5 };
      paintExtent(surface, pixels, line, one, look.palette);
      y += this.bandHeight;
    }
    this.#paintRate(surface, axis, view, { ...box, y, height: this.bandHeight - 5 }, look.palette);
    y += this.bandHeight;
    this.#paintBounds(surface, pixels, this.#sumsOfBounds(axis.mode), { ...box, y, height: BOUND_HEIGHT }, look.palette);
    paintNow(surface, axis, view, box, look);
  }

  /** Where each band's label stands: [y of its middle, label, value at t]. */
  labelled(y, t) {
    const found = this.labels(t).map(([label, value], i) => [y + (i + 0.45) * this.bandHeight, label, value]);
    return [...found, [y + found.length * this.bandHeight + BOUND_HEIGHT / 2, say("bound"), ""]];
  }

  /** [label, value] of each band at the clock's time, in the order in which they are painted. */
  labels(t) {
    const { run } = this;
    const step = run.newestStep(t);
    const values = { band_waiting: run.waitingCount(t), band_batch: step < 0 ? 0 : run.batch[step], band_kv: run.kvUsed(t) };
    const over = t > run.endNs;
    const found = this.lines.map(({ key }) => [say(key), over ? "–" : number(values[key] ?? 0)]);
    const rate = step < 0 ? null : run.rate(t, t);
    found.push([say("band_rate"), rate === null ? "–" : number(rate)]);
    return found;
  }

  #paintRate(surface, axis, view, box, palette) {
    const { run } = this;
    const rates = [];
    for (let i = 0; i < box.width; i++) {
      const from = axis.time(view.from + (i / box.width) * view.width);
      rates.push(run.rate(from, axis.time(view.from + ((i + 1) / box.width) * view.width)));
    }
    const most = rates.reduce((found, rate) => Math.max(found, rate ?? 0), 1);
    background(surface, box, palette);
    rates.forEach((rate, i) => {
      if (rate) surface.rect(box.x + i, box.y + box.height * (1 - rate / most), 1, (box.height * rate) / most, palette.finished);
    });
    scaleTop(surface, most, box, palette);
  }

  /** For each bound of the run the sums of its steps' time, or of their number where the axis counts steps. */
  #sumsOfBounds(mode) {
    const { bound, start, end } = this.run.step;
    const weight = mode === BY_TIME ? (i) => end[i] - start[i] : () => 1;
    const summed = (code) => sums(Float64Array.from(bound, (own, i) => (own === code ? weight(i) : 0)));
    return (this.boundSums[mode] ??= this.boundCodes.map(summed));
  }

  /** Shares of the steps' time, or of their number where the axis counts steps; nothing where no step runs. */
  #paintBounds(surface, pixels, boundSums, box, palette) {
    background(surface, box, palette);
    for (const { left, ran, first, last } of pixels) {
      const parts = boundSums.map((own) => own[last] - own[first]);
      const whole = parts.reduce((sum, part) => sum + part, 0);
      let y = box.y;
      parts.forEach((part, i) => {
        if (!part) return;
        const height = (box.height * part) / whole;
        surface.rect(left, y, ran, height, boundColour(this.bounds[this.boundCodes[i]], palette));
        y += height;
      });
    }
  }
}

/** The colour of a bound in the band, for its legend. */
export function boundColour(bound, palette) {
  return palette[COLOUR_OF_BOUND[bound]];
}

function top(extent, run) {
  return Math.max(run.steps ? extent.of(0, run.steps)[1] : 0, 1);
}

function background(surface, box, palette) {
  surface.rect(box.x, box.y, box.width, box.height, palette.panel);
}

/** Where the newest steps before `next` end, one a replica. */
function lastEnd(run, axis, next) {
  let end = 0;
  for (let step = Math.max(next - run.replicas.length, 0); step < next; step++) end = Math.max(end, axis.column(step)[1]);
  return end;
}

/** The columns of the band: a step each where there is room, else the steps of a pixel together.
 *
 * `width` lasts until the next column, `ran` until the last of its steps ends. */
function columnsOf(run, axis, view, box) {
  const scale = box.width / view.width;
  const [first, last] = axis.steps(view.from, view.to);
  const found = [];
  let step = first;
  while (step < last) {
    const left = box.x + (axis.column(step)[0] - view.from) * scale;
    let next = step + 1;
    if (last - first > box.width / 2) next = Math.max(axis.steps(view.from, view.from + (left + 1 - box.x) / scale)[1], next);
    next = Math.min(next, last);
    // A step's value holds until the next one's schedule.
    const right = next < run.steps ? axis.column(next)[0] : axis.column(next - 1)[1];
    // Whole pixels: no background between two columns.
    const pixel = (x) => clamp(Math.round(box.x + (x - view.from) * scale), box.x, box.x + box.width);
    const begin = Math.max(Math.round(left), box.x);
    const end = pixel(right);
    if (end > begin) {
      const ran = Math.max(pixel(Math.min(lastEnd(run, axis, next), right)) - begin, 1);
      found.push({ left: begin, width: end - begin, ran, first: step, last: next });
    }
    step = next;
  }
  return found;
}

function paintExtent(surface, pixels, { extent, top, colour }, box, palette) {
  background(surface, box, palette);
  for (const { left, width, first, last } of pixels) {
    const [low, high] = extent.of(first, last);
    surface.rect(left, box.y + box.height * (1 - low / top), width, (box.height * low) / top, palette[colour], 0.75);
    const lifted = (box.height * (high - low)) / top;
    surface.rect(left, box.y + box.height * (1 - high / top), width, Math.max(lifted, high ? 1.5 : 0), palette[colour]);
  }
  scaleTop(surface, top, box, palette);
}

/** The number that the band's upper edge stands for. */
function scaleTop(surface, value, box, palette) {
  const text = number(value);
  const width = surface.textWidth(text, 10) + 6;
  surface.rect(box.x + box.width - width, box.y, width, 13, palette.ground, 0.75);
  surface.text(text, box.x + box.width - 3, box.y + 10, { size: 10, fill: palette.text, align: 1 });
}

/** The clock's line over a box. */
export function paintNow(surface, axis, view, box, { palette, t }) {
  const x = box.x + ((axis.x(t) - view.from) * box.width) / view.width;
  if (x < box.x - 1 || x > box.x + box.width + 1) return;
  surface.rect(x - 1, box.y, 2, box.height, palette.text);
}
