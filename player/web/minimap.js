// The whole run in a strip, the stretch in view framed.

import { View } from "./axis.js";

export const MINIMAP_HEIGHT = 30;

/** Paint one run's strip; `view` and `rows` are what the grid shows. */
export function paintMinimap(surface, run, axis, length, view, box, { palette, tiles, rows, t }) {
  const scale = box.width / length;
  surface.rect(box.x, box.y, box.width, box.height, palette.panel);
  const own = { ...box, width: Math.max(axis.length * scale, 1) };
  const whole = tiles.paint(surface, new View(0, axis.length), own);
  surface.rect(box.x + axis.x(t) * scale - 1, box.y, 2, box.height, palette.text);
  const left = Math.max(view.from * scale, 0);
  const right = Math.min(view.to * scale, box.width);
  surface.rect(box.x, box.y, left, box.height, palette.ground, 0.6);
  surface.rect(box.x + right, box.y, box.width - right, box.height, palette.ground, 0.6);
  const row = box.height / run.slots;
  const [top, height] = [Math.max(rows.first * row, 1), Math.max(rows.count * row - 2, 3)];
  surface.frame(box.x + left + 1, box.y + top, Math.max(right - left - 2, 3), height, palette.text, 2);
  return whole;
}
