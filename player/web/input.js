// Hands on the canvas: pointer, wheel, pinch; and the keyboard for the whole page.

import { byId, openDialog } from "./dom.js";
import { cellSentence } from "./why.js";

const CLICK_DISTANCE = 4;

/** Let one lane's canvas be taken hold of. */
export function listen(app, lane) {
  const { canvas } = lane;
  const pointers = new Map();
  let press = null;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", (event) => {
    const point = at(event);
    pointers.set(event.pointerId, point);
    canvas.setPointerCapture(event.pointerId);
    press = { ...point, view: app.view, rows: lane.rows, part: lane.partAt(point.y), moved: false };
    if (press.part === "ruler" || press.part === "bands") app.goTo(lane.axis.time(lane.valueAt(point.x)));
    if (press.part === "map") centre(point);
  });
  canvas.addEventListener("pointermove", (event) => {
    const point = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) return hover(app, lane, point, event);
    if (pointers.size === 2) pinch(event.pointerId, point);
    else drag(point);
    pointers.set(event.pointerId, point);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      const still = press && !press.moved && pointers.size === 1 && end === "pointerup";
      pointers.delete(event.pointerId);
      if (still && press.part === "grid") app.pick(lane.cellAt(press.x, press.y));
      if (!pointers.size) press = null;
    });
  }
  canvas.addEventListener("pointerleave", () => (byId("tip").hidden = true));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = at(event);
    if (event.altKey) return app.zoomRows(event.deltaY > 0 ? 1.25 : 0.8, lane.slotAt(y));
    const sideways = event.shiftKey ? event.deltaY : event.deltaX;
    if (Math.abs(sideways) > Math.abs(event.deltaY) || event.shiftKey) {
      return app.look(app.view.moved((sideways * app.view.width) / lane.grid.width));
    }
    app.look(app.view.zoomed(1.0016 ** clampWheel(event), lane.valueAt(x)));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => {
    const { x, y } = at(event);
    const cell = lane.cellAt(x, y);
    if (cell) app.closeUp(cell);
  });

  function drag(point) {
    if (!press) return;
    press.moved ||= Math.hypot(point.x - press.x, point.y - press.y) > CLICK_DISTANCE;
    if (press.part === "map") return centre(point);
    if (press.part !== "grid") return app.goTo(lane.axis.time(lane.valueAt(point.x)));
    if (!press.moved) return;
    if (app.rows) app.lookRows(press.rows.moved(Math.round((press.y - point.y) / lane.row)).within(lane.run.slots));
    app.look(press.view.moved(((press.x - point.x) * press.view.width) / lane.grid.width));
  }

  function centre(point) {
    const value = ((point.x - lane.map.x) / lane.map.width) * app.length;
    const slot = ((point.y - lane.map.y) / lane.map.height) * lane.run.slots;
    if (app.rows) app.lookRows(lane.rows.moved(Math.round(slot - lane.rows.first - lane.rows.count / 2)).within(lane.run.slots));
    app.look(app.view.moved(value - (app.view.from + app.view.to) / 2));
  }

  function pinch(id, point) {
    const [other] = [...pointers].filter(([key]) => key !== id).map(([, value]) => value);
    const before = pointers.get(id);
    press.moved = true;
    // Fingers above each other zoom the slots, side by side the time.
    if (Math.abs(before.y - other.y) > Math.abs(before.x - other.x)) return pinchRows(before, point, other);
    const [was, is] = [before, point].map((one) => Math.max(Math.abs(one.x - other.x), 12));
    app.look(app.view.zoomed(was / is, lane.valueAt((point.x + other.x) / 2)));
    press.view = app.view;
    press.x = point.x;
  }

  /** The slots follow the fingers once they are a row further apart, or closer. */
  function pinchRows(before, point, other) {
    press.apart ??= Math.abs(before.y - other.y);
    const factor = press.apart / Math.max(Math.abs(point.y - other.y), 12);
    if (Math.abs(lane.rows.count * (factor - 1)) < 1) return;
    app.zoomRows(factor, lane.slotAt((point.y + other.y) / 2));
    press.apart = Math.abs(point.y - other.y);
  }
}

function clampWheel(event) {
  // A mouse says lines or hundreds of pixels, a touchpad single ones; both should zoom by a like amount.
  const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1) * (event.ctrlKey ? 6 : 1);
  return Math.max(-300, Math.min(pixels, 300));
}

function hover(app, lane, point, event) {
  const tip = byId("tip");
  const cell = lane.cellAt(point.x, point.y);
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = cellSentence(lane.run, cell.slot, cell.step);
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, room))}px`;
  tip.style.top = `${event.clientY + 18}px`;
}

/** The keys of the whole page, and what each does. */
export function keysOf(app) {
  return {
    " ": () => app.clock.toggle(),
    ".": () => app.jump("next", "step"),
    ",": () => app.jump("previous", "step"),
    a: () => app.jump("next", "admission"),
    A: () => app.jump("previous", "admission"),
    f: () => app.jump("next", "finish"),
    F: () => app.jump("previous", "finish"),
    e: () => app.jump("next", "preemption"),
    E: () => app.jump("previous", "preemption"),
    s: () => app.visit("slowestStep"),
    w: () => app.visit("longestWait"),
    g: () => app.visit("worstPause"),
    "[": () => app.hurry(-1),
    "]": () => app.hurry(1),
    "+": () => app.zoom(0.5),
    "=": () => app.zoom(0.5),
    "-": () => app.zoom(2),
    0: () => app.whole(),
    v: () => app.zoomRows(0.5),
    V: () => app.zoomRows(2),
    t: () => app.turnAxis(),
    "?": () => openDialog("help"),
  };
}

const MOVES = {
  ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
  PageUp: [0, -20], PageDown: [0, 20], Home: [0, -Infinity], End: [0, Infinity],
};

/** Let the keyboard do everything. */
export function listenKeys(app) {
  const keys = keysOf(app);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const on = event.target;
    const lane = app.lanes.find((one) => one.canvas === on);
    if (lane && event.key in MOVES) {
      event.preventDefault();
      return app.moveFocus(lane, ...MOVES[event.key]);
    }
    if (lane && event.key === "Enter") return app.pick(app.focus ?? app.focusAtClock(lane));
    if (event.key === "Escape") return app.select(null);
    const busy = on.closest?.("select, input, summary, a") || (event.key === " " && on.closest?.("button"));
    if (busy || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
}
