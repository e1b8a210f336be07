// The page as a whole: which runs are shown, the clock, the window, what is looked at; and drawing it when it changes.

import { fillAbout } from "./about.js";
import { BY_STEP, BY_TIME, View } from "./axis.js";
import { Clock, FACTORS } from "./clock.js";
import { differences, showDifference } from "./compare.js";
import { connect, factorText, write } from "./controls.js";
import { byId, openDialog } from "./dom.js";
import { download, pngOf, svgOf } from "./export.js";
import { fillFilm, filmInstant, showFilmSecond } from "./film.js";
import { listen, listenKeys } from "./input.js";
import { RequestPanel, showSteps } from "./inspector.js";
import { Lane } from "./lane.js";
import { readLink, writeLink } from "./links.js";
import { showLegend } from "./legend.js";
import { unpack } from "./packed.js";
import { Rows } from "./rows.js";
import { Run } from "./run.js";
import { announce, showTable } from "./table.js";
import { Theme } from "./theme.js";
import { cellSentence, changesOf, stepFacts } from "./why.js";
import { duration, has, number, requestName, say } from "./words.js";

/** Rows of so many pixels have room for words. */
const READABLE_ROW = 17;

class App {
  constructor(data) {
    Object.assign(this, { data, lanes: [], focus: null, selected: null, mode: BY_TIME, view: new View(0, 1), rows: null, waiting: false });
    this.loaded = new Map();
    this.language = navigator.language?.startsWith("zh") ? "zh" : data.language;
    this.clock = new Clock(() => this.ticked());
    this.theme = new Theme(data.palettes, () => this.redraw());
    this.theme.apply();
    write(this);
    connect(this);
    listenKeys(this);
    this.requestPanel = new RequestPanel(this);
    addEventListener("hashchange", () => this.follow());
    new ResizeObserver(() => this.redraw()).observe(byId("lanes"));
  }

  async start() {
    const link = this.#read(location.hash);
    await this.show(this.#keysFor(link));
    this.#apply(link);
    document.documentElement.dataset.ready = "true";
  }

  /** A link; where it names a second of the film, that second's run and time. */
  #read(hash) {
    const link = readLink(hash);
    const shown = link.film === null ? null : filmInstant(this.data, link.film);
    if (!shown) return link;
    const keys = this.#keysFor({ keys: [], named: [] }).filter((key) => !shown.digest.startsWith(key));
    return { ...link, keys: [shown.digest.slice(0, 12), ...keys].slice(0, 2), seconds: shown.seconds };
  }

  #keysFor({ keys: wanted, named }) {
    const found = wanted.map((key) => this.data.runs.find((run) => run.key.startsWith(key) || run.digest.startsWith(key)));
    if (found.length && found.every(Boolean)) return found.map((run) => run.key);
    const there = this.data.runs.filter((run) => named.includes(run.key));
    if (!there.length) return this.data.opening;
    const medians = there.filter((run) => run.median);
    return (medians.length > 1 ? medians : there).slice(0, 2).map((run) => run.key);
  }

  /** Show one run or two, and all of them. */
  async show(keys) {
    const runs = await Promise.all([...new Set(keys)].map((key) => this.#load(key)));
    this.clock.playing = false;
    this.lanes = runs.map((run) => new Lane(run, this, runs.length > 1));
    this.focus = this.selected = null;
    byId("lanes").replaceChildren(...this.lanes.map((lane) => lane.element));
    for (const lane of this.lanes) listen(this, lane);
    this.#layout();
    this.clock.end = Math.max(...runs.map((run) => run.endNs), 1);
    this.clock.t = this.clock.end;
    this.clock.factor = Clock.fitting(this.clock.end / 1e9);
    this.whole();
    this.rename();
  }

  async #load(key) {
    if (!this.loaded.has(key)) {
      const facts = this.data.runs.find((run) => run.key === key);
      this.loaded.set(key, unpack(byId(`columns-${key}`).textContent).then((unpacked) => new Run(facts, unpacked)));
    }
    return this.loaded.get(key);
  }

  choose() {
    this.show([byId("first-run").value, byId("second-run").value].filter(Boolean));
  }

  async follow() {
    const link = this.#read(location.hash);
    const keys = this.#keysFor(link);
    if (link.keys.length + link.named.length && keys.join() !== this.lanes.map((lane) => lane.run.facts.key).join()) await this.show(keys);
    this.#apply(link);
  }

  #apply({ seconds, cell }) {
    const [lane] = this.lanes;
    if (seconds !== null) this.goTo(seconds * 1e9 - lane.run.facts.begin_ns);
    if (cell && cell.slot < lane.run.slots && cell.step < lane.run.steps) {
      this.closeUp({ lane, ...cell });
      this.pick({ lane, ...cell });
      if (seconds === null) this.goTo(lane.run.step.start[cell.step]);
    }
  }

  /** A stretch and slots in which the cell's neighbours can be read. */
  closeUp({ lane, slot, step }) {
    const most = Math.max(Math.floor(lane.grid.height / READABLE_ROW), 1);
    const { rows } = lane;
    this.lookRows(rows.count > most ? new Rows(slot - (most >> 1), most).within(lane.run.slots) : rows.holding(slot));
    const [from, to] = lane.axis.column(step);
    const columns = Math.max(Math.min(lane.grid.width, 1600) / 34, 8);
    const near = lane.axis.mode === BY_STEP ? columns : columns * Math.max((lane.run.endNs / Math.max(lane.run.steps, 1)), to - from);
    if (this.view.width > near) this.look(new View((from + to - near) / 2, (from + to + near) / 2));
    else this.look(this.view.holding(from));
  }

  /** What a run is called: its case in the films' words, and which repeat it is. */
  nameOf(run) {
    const { name, group } = run.facts;
    return name === group ? this.caseOf(run) : `${this.caseOf(run)} ${name.slice(group.length + 1)}`;
  }

  /** What a run's case is called: by the films' word where there is one. */
  caseOf({ facts }) {
    const word = `case_${facts.case.replaceAll("-", "_")}`;
    return facts.group === facts.case && has(word) ? say(word) : facts.group;
  }

  /** The longest axis of the runs that are shown. */
  get length() {
    return Math.max(...this.lanes.map((lane) => lane.axis.length));
  }

  look(view) {
    const least = Math.min(...this.lanes.map((lane) => lane.axis.least));
    this.view = view.within(this.length, least);
    this.redraw();
  }

  /** Show these slots of every run; null where it is all of them. */
  lookRows(rows) {
    this.rows = rows.count < Math.max(...this.lanes.map((lane) => lane.run.slots)) ? rows : null;
    this.redraw();
  }

  /** So many times as many slots, around one: the focused one where none is named. */
  zoomRows(factor, slot = this.focus?.slot ?? this.active.rows.first) {
    const most = Math.max(...this.lanes.map((lane) => lane.run.slots));
    this.lookRows((this.rows ?? new Rows(0, most)).zoomed(factor, slot).within(most));
  }

  zoom(factor) {
    const { axis } = this.lanes[0];
    const now = axis.x(this.clock.t);
    const inside = now >= this.view.from && now <= this.view.to;
    this.look(this.view.zoomed(factor, inside ? now : (this.view.from + this.view.to) / 2));
  }

  whole() {
    this.rows = null;
    this.look(new View(0, this.length).zoomed(1.04, this.length / 2));
  }

  turnAxis() {
    const [lane] = this.lanes;
    const ends = [lane.axis.time(this.view.from), lane.axis.time(this.view.to)];
    this.mode = this.mode === BY_TIME ? BY_STEP : BY_TIME;
    this.look(new View(...ends.map((t) => lane.axis.x(t))));
    this.writeAxis();
    announce(byId("axis").textContent);
  }

  writeAxis() {
    byId("axis").textContent = say(this.mode === BY_TIME ? "axis_time" : "axis_step");
  }

  turnLanguage() {
    const names = Object.keys(this.data.words);
    this.language = names[(names.indexOf(this.language) + 1) % names.length];
    this.rename();
  }

  rename() {
    write(this);
    this.writeAxis();
    for (const lane of this.lanes) lane.rename();
    document.title = `${this.lanes.map((lane) => this.nameOf(lane.run)).join(" · ")} – tracereel`;
    byId("machine").textContent = machineOf(this.lanes[0].run.facts);
    this.redraw();
  }

  setFactor(factor) {
    this.clock.factor = factor;
    this.redraw();
  }

  hurry(by) {
    const at = FACTORS.indexOf(this.clock.factor) + by;
    if (at in FACTORS) this.setFactor(FACTORS[at]);
    byId("speed").value = String(this.clock.factor);
    announce(factorText(this.clock.factor));
  }

  goTo(t) {
    this.clock.set(t);
    this.look(this.view.holding(this.lanes[0].axis.x(this.clock.t)));
  }

  /** The lane whose events the jumps follow: the focused one. */
  get active() {
    return this.focus?.lane ?? this.lanes[0];
  }

  jump(way, kind) {
    this.clock.pause();
    const found = this.active.jumps[way](kind, this.clock.t);
    this.#arrive(found, kind);
  }

  visit(moment) {
    this.clock.pause();
    this.#arrive(this.active.jumps[moment](), moment);
  }

  #arrive(found, kind) {
    if (!found) return announce(say(`none_${kind}`));
    this.goTo(found.t);
    const { run } = this.active;
    const step = found.step ?? run.newestStep(found.t);
    const who = found.request === undefined ? "" : `${requestName(found.request)}. `;
    if (found.request !== undefined && kind !== "step") this.select({ lane: this.active, request: found.request });
    if (step >= 0) announce(who + stepFacts(run, step, this.data.bounds).map((pair) => pair.join(" ")).join(". "));
  }

  /** Focus a cell and open its request. */
  pick(cell) {
    this.focus = cell;
    if (cell) {
      const request = cell.lane.run.member(cell.slot, cell.step)?.request;
      this.select(request === undefined ? null : { lane: cell.lane, request });
      announce(cellSentence(cell.lane.run, cell.slot, cell.step));
    }
    this.redraw();
  }

  select(selected) {
    this.selected = selected;
    this.redraw();
  }

  /** The first slot's cell at the clock, where no cell is focused yet; null in a run without a step. */
  focusAtClock(lane) {
    if (!lane.run.steps) return null;
    return { lane, slot: 0, step: Math.max(lane.run.newestStep(this.clock.t), 0) };
  }

  /** Move the focused cell by slots and by steps of its replica. */
  moveFocus(lane, slots, steps) {
    if (!lane.run.steps) return;
    const from = this.focus?.lane === lane ? this.focus : null;
    const { slot, step } = from ?? this.focusAtClock(lane);
    const { run } = lane;
    const next = Math.max(0, Math.min(from ? slot + slots : slot, run.slots - 1));
    const own = run.replicas[run.replicaOfSlot[next]].steps;
    if (!own.length) return;
    const ordinal = run.replicaOfSlot[next] === run.replicaOfSlot[slot] ? run.ordinal[step] : 0;
    const at = Math.max(0, Math.min(from ? ordinal + steps : ordinal, own.length - 1));
    this.focus = { lane, slot: next, step: own[at] };
    this.view = this.view.holding(lane.axis.column(own[at])[0]);
    if (this.rows) this.rows = lane.rows.holding(next);
    announce(cellSentence(run, next, own[at]));
    this.redraw();
  }

  /** What is seen, as SVG. */
  get svg() {
    return svgOf(this.lanes, this.theme.palette, (surface, lane) => lane.paint(surface));
  }

  save(kind) {
    const { svg } = this;
    const name = `tracereel-${this.lanes.map((lane) => lane.run.facts.key).join("-")}`;
    if (kind === "svg") return download(`${name}.svg`, "image/svg+xml", svg);
    return pngOf(svg).then((png) => download(`${name}.png`, "image/png", png));
  }

  get link() {
    return writeLink(this.lanes.map((lane) => lane.run), this.clock.t, this.focus?.lane === this.lanes[0] ? this.focus : null);
  }

  copyLink() {
    // In a notebook's frame the page has no address of its own.
    const framed = location.protocol === "about:";
    if (!framed) history.replaceState(null, "", this.link);
    navigator.clipboard?.writeText(framed ? this.link : location.href).then(() => announce(say("link_copied")), () => announce(say("link_shown")));
    byId("copy-link").dataset.done = "true";
  }

  showAbout() {
    fillAbout(this);
    openDialog("about");
  }

  showFilm() {
    fillFilm(this);
    openDialog("film");
  }

  /** Go to what the film shows at a second of it. */
  async openFilmSecond(second) {
    const link = this.#read(`#film=${second}`);
    const keys = this.#keysFor(link);
    if (link.keys.length && keys[0] !== this.lanes[0].run.facts.key) await this.show(keys);
    this.#apply(link);
  }

  ticked() {
    if (this.clock.playing && this.lanes.length) {
      const x = this.lanes[0].axis.x(this.clock.t);
      if (x > this.view.to - this.view.width * 0.15 && this.view.to < this.length) {
        this.view = this.view.moved(x - this.view.from - this.view.width * 0.3).within(this.length, 0);
      }
    }
    this.redraw();
  }

  redraw() {
    if (this.waiting || !this.lanes?.length) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#draw();
    });
  }

  /** The table behind the canvas follows once nothing has moved for a moment. */
  #tableLater() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.lanes.forEach((lane) => showTable(this, lane)), 120);
  }

  #layout() {
    const width = byId("lanes").clientWidth;
    const room = Math.max(innerHeight * (this.lanes.length > 1 ? 0.26 : 0.5), 120);
    for (const lane of this.lanes) lane.layout(width, room);
  }

  #draw() {
    const { t, playing, factor } = this.clock;
    this.#layout();
    let whole = true;
    for (const lane of this.lanes) {
      whole = lane.draw() && whole;
      lane.count(t);
    }
    const [{ run }] = this.lanes;
    byId("time").textContent = say("time", { t: number((t + run.facts.begin_ns) / 1e9, 3) });
    byId("factor").textContent = playing ? factorText(factor) : say("held");
    showFilmSecond(this);
    byId("play").dataset.playing = String(playing);
    showSteps(this);
    showDifference(this);
    showLegend(this);
    this.requestPanel.show(this.selected, t);
    this.#tableLater();
    if (!whole) this.redraw();
  }
}

function machineOf({ provenance }) {
  const { engine, model, device, workload } = provenance;
  return [`${engine.name} ${engine.version}`, model.name, device.name, workload.name].join(" · ");
}

async function main() {
  const data = JSON.parse(byId("tracereel-data").textContent);
  const app = new App(data);
  window.tracereel = { app, changesOf, differences, duration };
  try {
    await app.start();
  } catch (error) {
    byId("lanes").textContent = String(error);
    throw error;
  }
}

main();
