// Slots against time from afar: bitmaps of many steps a pixel, made once and kept. A pixel has the mean colour of what
// its stretch of the axis held, idle slots counted as what they are.

import { rgb } from "./theme.js";

const WIDTH = 256;
const KEPT = 160;
/** A frame that has spent so many milliseconds on new tiles shows coarser ones for the rest. */
const BUDGET_MS = 9;

/** The tiles of one run on one axis in one palette. */
export class Tiles {
  constructor(run, axis, palette) {
    Object.assign(this, { run, axis, palette, made: new Map() });
    this.colours = palette.requests.map(rgb);
    this.idle = rgb(palette.idle_slot);
    this.prefill = rgb(palette.prefill);
    this.topLevel = Math.ceil(Math.log2(Math.max(axis.length / WIDTH, 1)));
  }

  /** Paint the view into a box; true where every tile was there, false where coarser ones stood in. */
  paint(surface, view, { x, y, width, height }) {
    const level = Math.min(Math.max(Math.floor(Math.log2(view.width / width)), 0), this.topLevel);
    const size = WIDTH * 2 ** level;
    const begun = performance.now();
    let whole = true;
    for (let index = Math.max(Math.floor(view.from / size), 0); index * size < Math.min(view.to, this.axis.length); index++) {
      let tile = this.made.get(`${level}/${index}`);
      if (!tile && performance.now() - begun < BUDGET_MS) tile = this.#make(level, index);
      whole &&= Boolean(tile);
      this.#draw(surface, tile ?? this.#coarser(level, index), view, { x, y, width, height }, index * size, size);
    }
    return whole;
  }

  #draw(surface, tile, view, box, from, size) {
    if (!tile) return;
    const scale = box.width / view.width;
    const left = box.x + (tile.from - view.from) * scale;
    if (tile.from === from) {
      surface.image(tile.picture, left, box.y, tile.size * scale, box.height);
    } else {
      surface.clipped(box.x + (from - view.from) * scale, box.y, size * scale, box.height, () =>
        surface.image(tile.picture, left, box.y, tile.size * scale, box.height),
      );
    }
  }

  #coarser(level, index) {
    for (let up = level + 1; up <= this.topLevel; up++) {
      const tile = this.made.get(`${up}/${index >> (up - level)}`);
      if (tile) return tile;
    }
    return this.#make(this.topLevel, index >> (this.topLevel - level));
  }

  #make(level, index) {
    const size = WIDTH * 2 ** level;
    const tile = { from: index * size, size, picture: this.#picture(index * size, 2 ** level) };
    if (this.made.size >= KEPT) this.made.delete(this.made.keys().next().value);
    this.made.set(`${level}/${index}`, tile);
    return tile;
  }

  #picture(from, unit) {
    const picture = document.createElement("canvas");
    picture.width = WIDTH;
    picture.height = this.run.slots;
    const context = picture.getContext("2d");
    const image = context.createImageData(WIDTH, this.run.slots);
    const sums = new Float32Array(WIDTH * 4);
    for (let slot = 0; slot < this.run.slots; slot++) {
      sums.fill(0);
      this.#gather(sums, slot, from, unit);
      this.#write(image.data, sums, slot, from, unit);
    }
    context.putImageData(image, 0, 0);
    return picture;
  }

  /** Add up what the slot's spans put into each pixel: red, green, blue and share. */
  #gather(sums, slot, from, unit) {
    const { run, axis } = this;
    const { order, bounds } = run.spansOfSlot;
    const replica = run.replicas[run.replicaOfSlot[slot]];
    const to = from + WIDTH * unit;
    const first = axis.stepAt(from, slot);
    if (first < 0) return;
    const begin = Math.max(run.firstSpanAfter(slot, run.ordinal[first]) - 1, bounds[slot]);
    for (let at = begin; at < bounds[slot + 1]; at++) {
      const span = order[at];
      const ordinal = run.spanOrdinal[span];
      const left = axis.column(replica.steps[ordinal])[0];
      if (left >= to) break;
      const right = axis.column(replica.steps[ordinal + run.span.length[span] - 1])[1];
      const colour = run.span.decode[span] ? this.colours[run.request.colour[run.span.request[span]]] : this.prefill;
      spread(sums, Math.max((left - from) / unit, 0), Math.min((right - from) / unit, WIDTH), colour);
    }
  }

  #write(data, sums, slot, from, unit) {
    const end = Math.min((this.axis.length - from) / unit, WIDTH);
    for (let pixel = 0; pixel < end; pixel++) {
      const share = Math.min(sums[4 * pixel + 3], 1);
      const at = 4 * (slot * WIDTH + pixel);
      const weight = sums[4 * pixel + 3] > 1 ? 1 / sums[4 * pixel + 3] : 1;
      for (let c = 0; c < 3; c++) data[at + c] = sums[4 * pixel + c] * weight + this.idle[c] * (1 - share);
      data[at + 3] = 255;
    }
  }
}

function spread(sums, left, right, colour) {
  const last = Math.min(Math.ceil(right), WIDTH);
  for (let pixel = Math.floor(left); pixel < last; pixel++) {
    const share = Math.min(right, pixel + 1) - Math.max(left, pixel);
    for (let c = 0; c < 3; c++) sums[4 * pixel + c] += colour[c] * share;
    sums[4 * pixel + 3] += share;
  }
}
