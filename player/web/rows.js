// Which slots are in view. Values, not state: each change gives new ones.

import { clamp } from "./axis.js";

/** Fewer slots are not worth a look of their own. */
const LEAST = 4;

/** The slots from `first` on, `count` of them. */
export class Rows {
  constructor(first, count) {
    this.first = first;
    this.count = count;
  }

  get end() {
    return this.first + this.count;
  }

  /** So many times as many slots, at least one more or less, with `slot` about where it is. */
  zoomed(factor, slot) {
    const count = factor < 1 ? Math.min(Math.floor(this.count * factor), this.count - 1) : Math.max(Math.ceil(this.count * factor), this.count + 1);
    const kept = Math.max(count, LEAST);
    return new Rows(Math.round(slot - ((slot - this.first) * kept) / this.count), kept);
  }

  moved(by) {
    return new Rows(this.first + by, this.count);
  }

  /** Moved so that a slot is in view. */
  holding(slot) {
    if (slot < this.first) return new Rows(slot, this.count);
    return slot < this.end ? this : new Rows(slot - this.count + 1, this.count);
  }

  /** Within a run's slots. */
  within(slots) {
    const count = clamp(this.count, 1, slots);
    return new Rows(clamp(this.first, 0, slots - count), count);
  }
}
