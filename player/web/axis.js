// Where engine time stands on the horizontal axis: columns by time, or by step.

import { upTo } from "./search.js";

export const BY_TIME = "time";
export const BY_STEP = "step";

/** Maps a run's engine time to x and back. By time x is nanoseconds, by step the number of the step in the file. */
export class Axis {
  constructor(run, mode) {
    this.run = run;
    this.mode = mode;
  }

  /** The largest x of the run. */
  get length() {
    return Math.max(this.mode === BY_TIME ? this.run.endNs : this.run.steps, 1);
  }

  /** The smallest stretch that is worth looking at: a tenth of the shortest step, or a fifth of a step. */
  get least() {
    return this.mode === BY_TIME ? Math.max(this.length / 2e8, 1000) : 0.2;
  }

  x(t) {
    if (this.mode === BY_TIME) return t;
    const { start, end } = this.run.step;
    const newest = upTo(start, t) - 1;
    if (newest < 0) return 0;
    const share = end[newest] > start[newest] ? (t - start[newest]) / (end[newest] - start[newest]) : 1;
    return newest + Math.min(share, 1);
  }

  time(x) {
    if (this.mode === BY_TIME) return x;
    const { start, end } = this.run.step;
    const step = Math.min(Math.max(Math.floor(x), 0), this.run.steps - 1);
    if (step < 0) return 0;
    return start[step] + Math.min(Math.max(x - step, 0), 1) * (end[step] - start[step]);
  }

  /** [from, to] of a step. */
  column(step) {
    return this.mode === BY_TIME ? [this.run.step.start[step], this.run.step.end[step]] : [step, step + 1];
  }

  /** The first and one past the last step that lie in a stretch of x. */
  steps(from, to) {
    if (this.mode === BY_STEP) {
      return [clamp(Math.floor(from), 0, this.run.steps), clamp(Math.ceil(to), 0, this.run.steps)];
    }
    // Steps of one replica do not overlap; of several the one that began before may still run.
    const first = Math.max(upTo(this.run.step.start, from) - this.run.replicas.length, 0);
    return [first, upTo(this.run.step.start, to)];
  }

  /** The step in whose column x lies, or the one before it. */
  stepAt(x, slot) {
    const t = this.time(x);
    if (this.mode === BY_STEP) return clamp(Math.floor(x), 0, this.run.steps - 1);
    const { steps, start } = this.run.replicas[this.run.replicaOfSlot[slot] ?? 0];
    return steps.length ? steps[Math.max(upTo(start, t) - 1, 0)] : -1;
  }
}

export function clamp(value, low, high) {
  return Math.max(low, Math.min(value, high));
}

/** The stretch of the axis in view. Values, not state: each change gives a new one. */
export class View {
  constructor(from, to) {
    this.from = from;
    this.to = to;
  }

  get width() {
    return this.to - this.from;
  }

  /** So many times as much of the axis, with `x` standing where it stands. */
  zoomed(factor, x) {
    return new View(x - (x - this.from) * factor, x + (this.to - x) * factor);
  }

  moved(by) {
    return new View(this.from + by, this.to + by);
  }

  /** Within 0 ... length, with a little air, and no smaller than `least`. */
  within(length, least) {
    const air = length * 0.02;
    const width = clamp(this.width, least, length + 2 * air);
    const middle = (this.from + this.to) / 2;
    const from = clamp(width === this.width ? this.from : middle - width / 2, -air, length + air - width);
    return new View(from, from + width);
  }

  /** Moved so that x is in it, a third from the left where it was not. */
  holding(x) {
    return x >= this.from && x <= this.to ? this : this.moved(x - this.width / 3 - this.from);
  }
}
