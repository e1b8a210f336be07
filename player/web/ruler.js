// The axis' numbers: seconds or steps, as many as there is room for.

import { number, say } from "./words.js";

export const RULER_HEIGHT = 22;

/** Paint ticks and their numbers into a box. */
export function paintRuler(surface, axis, view, box, palette) {
  const byTime = axis.mode === "time";
  const unit = tick((view.width / box.width) * 90, byTime ? 1 : 1);
  const digits = byTime ? Math.max(0, 9 - Math.floor(Math.log10(unit))) : 0;
  const first = Math.max(Math.ceil(view.from / unit), 0);
  for (let i = first; i * unit <= Math.min(view.to, axis.length); i++) {
    const x = box.x + ((i * unit - view.from) * box.width) / view.width;
    surface.rect(x, box.y, 1, 5, palette.dim);
    const text = byTime ? say("seconds", { value: number((i * unit) / 1e9, Math.min(digits, 9)) }) : number(i * unit);
    surface.text(text, x + 3, box.y + 15, { size: 11, fill: palette.dim });
  }
}

/** The next of 1, 2, 5, 10, ... that is at least so large. */
function tick(least, smallest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, smallest)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= Math.max(least, smallest));
}
