// One run on the page: its canvas with ruler, slots, bands and minimap, and what stands above it.

import { Axis, BY_STEP, BY_TIME } from "./axis.js";
import { Bands } from "./bands.js";
import { element } from "./dom.js";
import { paintGrid } from "./grid.js";
import { Jumps } from "./jumps.js";
import { MINIMAP_HEIGHT, paintMinimap } from "./minimap.js";
import { paintRuler, RULER_HEIGHT } from "./ruler.js";
import { Rows } from "./rows.js";
import { CanvasSurface } from "./surface.js";
import { Tiles } from "./tiles.js";
import { number, oneLine, say } from "./words.js";

const GAP = 8;
const ROW = { least: 1.5, most: 27 };

/** A run with all that shows it. */
export class Lane {
  constructor(run, app, many) {
    Object.assign(this, { run, app, many });
    this.axes = { [BY_TIME]: new Axis(run, BY_TIME), [BY_STEP]: new Axis(run, BY_STEP) };
    this.bands = new Bands(run, app.data.bounds, many ? 27 : 36);
    this.jumps = new Jumps(run);
    this.tiles = new Map();
    this.heading = element("h2", {});
    this.live = element("p", { class: "numbers" });
    this.notes = element("div", { class: "notes" });
    this.canvas = element("canvas", { tabindex: "0", role: "application", "aria-describedby": "keys-hint" });
    this.table = element("div", { class: "for-readers" });
    this.element = element("section", { class: "lane" }, this.heading, this.live, this.notes, this.canvas, this.table);
  }

  get axis() {
    return this.axes[this.app.mode];
  }

  get title() {
    return `${this.app.nameOf(this.run)} · ${this.run.facts.provenance.device.name}`;
  }

  /** The words, after a change of language. */
  rename() {
    this.heading.textContent = this.app.nameOf(this.run);
    this.notes.replaceChildren(...this.run.facts.notes.map((note) => element("p", { class: "note" }, oneLine(note))));
    this.canvas.setAttribute("aria-label", say("canvas", { run: this.app.nameOf(this.run), slots: this.run.slots, steps: number(this.run.steps) }));
  }

  /** The slots in view. */
  get rows() {
    return (this.app.rows ?? new Rows(0, this.run.slots)).within(this.run.slots);
  }

  /** Sizes for a width: where ruler, slots, bands and minimap lie. */
  layout(width, available) {
    const gutter = width > 640 ? 146 : 8;
    const least = Math.max(Math.min(available / this.run.slots, ROW.most), ROW.least);
    const inner = { x: gutter, width: Math.max(width - gutter - 8, 50) };
    const grid = { ...inner, y: RULER_HEIGHT, height: least * this.run.slots };
    const row = grid.height / this.rows.count;
    const bands = { ...inner, y: grid.y + grid.height + GAP, height: this.bands.height };
    const map = { ...inner, y: bands.y + bands.height + GAP, height: MINIMAP_HEIGHT };
    Object.assign(this, { width, gutter, row, grid, bandBox: bands, map, height: map.y + map.height + 4 });
  }

  /** Paint all of it; false where coarser tiles stood in and another frame should follow. */
  draw() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.canvas.style.height = `${this.height}px`;
    // With all slots in view a finger moves the page, else the slots.
    this.canvas.style.touchAction = this.rows.count < this.run.slots ? "none" : "pan-y";
    return this.paint(new CanvasSurface(this.canvas, this.width, this.height, ratio));
  }

  paint(surface) {
    const { app, run, axis } = this;
    const { view } = app;
    const palette = app.theme.palette;
    const focus = app.focus && app.focus.lane === this ? app.focus : null;
    const request = app.selected ? this.#selectedHere() : null;
    const look = { palette, tiles: this.#tiles(), rows: this.rows, t: app.clock.t, focus, request };
    surface.rect(0, 0, this.width, this.height, palette.ground);
    paintRuler(surface, axis, view, { ...this.grid, y: 0 }, palette);
    let whole = paintGrid(surface, run, axis, view, this.grid, look);
    surface.clipped(this.bandBox.x, this.grid.y, this.bandBox.width, this.height, () =>
      this.bands.paint(surface, axis, view, this.bandBox, look),
    );
    surface.clipped(this.grid.x, 0, this.grid.width, this.grid.y + this.grid.height, () => this.#now(surface, look));
    whole = paintMinimap(surface, run, axis, app.length, view, this.map, look) && whole;
    this.#labels(surface, palette);
    return whole;
  }

  #now(surface, { palette, t }) {
    const x = this.xOf(this.axis.x(t));
    surface.rect(x - 1, RULER_HEIGHT - 8, 2, this.grid.height + 8, palette.text);
    surface.rect(x - 4, RULER_HEIGHT - 8, 8, 5, palette.text);
  }

  #labels(surface, palette) {
    const narrow = this.gutter < 50;
    const x = narrow ? this.grid.x + 4 : this.gutter - 8;
    if (!narrow) this.#slotLabels(surface, palette);
    for (const [y, label, value] of this.bands.labelled(this.bandBox.y, this.app.clock.t)) {
      const text = narrow || !value ? label : value;
      if (narrow) surface.rect(x - 3, y - 9, surface.textWidth(`${label} ${value}`, 11) + 6, 15, palette.panel, 0.8);
      const under = narrow || !value ? 4 : this.bands.bandHeight > 30 ? 10 : null;
      if (narrow) surface.text(`${label} ${value}`, x, y + 3, { size: 11, fill: palette.text });
      else if (under === 4) surface.text(text, x, y + 4, { size: 12, fill: palette.dim, align: 1 });
      else if (under === 10) {
        surface.text(label, x, y - 3, { size: 12, fill: palette.dim, align: 1 });
        surface.text(text, x, y + 12, { size: 12, fill: palette.text, align: 1 });
      } else surface.text(`${label} ${value}`, x, y + 4, { size: 11, fill: palette.dim, align: 1 });
    }
  }

  #slotLabels(surface, palette) {
    const every = [1, 2, 4, 8, 16, 32, 64, 128].find((count) => count * this.row >= 14) ?? 256;
    const { first, end } = this.rows;
    for (let slot = Math.ceil(first / every) * every; slot < end; slot += every) {
      const y = this.grid.y + (slot - first) * this.row + Math.min(this.row, 14) / 2 + 4;
      const size = Math.min(12, Math.max(this.row * every * 0.8, 9));
      surface.text(say("slot_is", { slot }), this.gutter - 8, y, { size, fill: palette.dim, align: 1 });
    }
  }

  #tiles() {
    const key = `${this.app.mode}/${this.app.theme.name}`;
    if (!this.tiles.has(key)) this.tiles.set(key, new Tiles(this.run, this.axis, this.app.theme.palette));
    return this.tiles.get(key);
  }

  /** The selected request's number in this run, by its id; null where it is not here. */
  #selectedHere() {
    const { lane, request } = this.app.selected;
    if (lane === this) return request;
    const found = this.run.ids.indexOf(lane.run.ids[request]);
    return found < 0 ? null : found;
  }

  /** What the run has at the clock's time, in a line. */
  count(t) {
    const { run } = this;
    this.live.textContent = say("numbers", {
      tokens: number(run.outputTokens(t)),
      waiting: number(run.waitingCount(t)),
      running: number(run.runningCount(t)),
      finished: number(run.finishedCount(t)),
      requests: number(run.requests),
    });
  }

  xOf(value) {
    return this.grid.x + ((value - this.app.view.from) * this.grid.width) / this.app.view.width;
  }

  valueAt(x) {
    return this.app.view.from + ((x - this.grid.x) * this.app.view.width) / this.grid.width;
  }

  /** The part of the canvas that lies under a point: "ruler", "grid", "bands", "map", or null. */
  partAt(y) {
    if (y < this.grid.y) return "ruler";
    if (y < this.grid.y + this.grid.height) return "grid";
    if (y >= this.map.y) return "map";
    return y >= this.bandBox.y ? "bands" : null;
  }

  /** The slot at a height of the grid. */
  slotAt(y) {
    const { first, end } = this.rows;
    return Math.max(Math.min(first + Math.floor((y - this.grid.y) / this.row), end - 1), first);
  }

  /** The cell under a point: {lane, slot, step}, or null. */
  cellAt(x, y) {
    if (this.partAt(y) !== "grid" || x < this.grid.x || x > this.grid.x + this.grid.width) return null;
    const slot = this.slotAt(y);
    const value = this.valueAt(x);
    if (value < 0 || value > this.axis.length) return null;
    const step = this.axis.stepAt(value, slot);
    return step < 0 ? null : { lane: this, slot, step };
  }
}
