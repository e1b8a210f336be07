// Searching and grouping in sorted typed arrays.

/** How many of `values` (ascending, from index `low` up to but without `high`) are at most `limit`, plus `low`. */
export function upTo(values, limit, low = 0, high = values.length) {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The indices of `keys` (each 0 ... count - 1) by key, in their order: {order, bounds}; one more bound than keys. */
export function groupBy(keys, count) {
  const bounds = new Int32Array(count + 1);
  for (let i = 0; i < keys.length; i++) bounds[keys[i] + 1]++;
  for (let key = 0; key < count; key++) bounds[key + 1] += bounds[key];
  const free = bounds.slice();
  const order = new Int32Array(keys.length);
  for (let i = 0; i < keys.length; i++) order[free[keys[i]]++] = i;
  return { order, bounds };
}

/** A sorted copy as Float64Array. */
export function sorted(values) {
  return Float64Array.from(values).sort();
}

/** Sums so far: one entry more than `values`, from 0. */
export function sums(values) {
  const found = new Float64Array(values.length + 1);
  for (let i = 0; i < values.length; i++) found[i + 1] = found[i] + values[i];
  return found;
}

/** The largest and smallest value of any stretch of a series, in few looks: levels of bundles of eight. */
export class Extent {
  constructor(values) {
    this.levels = [{ low: values, high: values }];
    while (this.levels.at(-1).low.length > 8) this.levels.push(bundled(this.levels.at(-1)));
  }

  /** [smallest, largest] of the entries `from` up to but without `to`. */
  of(from, to) {
    let low = Infinity;
    let high = -Infinity;
    for (const level of this.levels) {
      const last = level === this.levels.at(-1);
      while (from < to && (from % 8 || last)) [low, high] = widened(low, high, level, from++);
      while (from < to && to % 8) [low, high] = widened(low, high, level, --to);
      from /= 8;
      to /= 8;
    }
    return [low, high];
  }
}

function widened(low, high, level, i) {
  return [Math.min(low, level.low[i]), Math.max(high, level.high[i])];
}

function bundled(level) {
  const size = Math.ceil(level.low.length / 8);
  const low = new Float64Array(size).fill(Infinity);
  const high = new Float64Array(size).fill(-Infinity);
  for (let i = 0; i < level.low.length; i++) {
    const at = i >> 3;
    if (level.low[i] < low[at]) low[at] = level.low[i];
    if (level.high[i] > high[at]) high[at] = level.high[i];
  }
  return { low, high };
}
