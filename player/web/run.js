// One recording and its state at any instant: the same answers as Timeline.at(t) in Python, which a test compares.
//
// Times are nanoseconds since the run's begin. A step's schedule takes effect at its start, its tokens and endings at
// its end, each at that very nanosecond.

import { Extent, groupBy, sorted, sums, upTo } from "./search.js";

export const ABSENT = -1;

export class Run {
  /** `facts` is the page's entry for the run, `unpacked` what its columns unpack to. */
  constructor(facts, unpacked) {
    Object.assign(this, { facts, ...unpacked });
    const column = (name) => unpacked.columns[name];
    this.slots = facts.slots;
    this.step = fields(unpacked.columns, "step");
    this.request = fields(unpacked.columns, "request");
    this.stay = fields(unpacked.columns, "stay");
    this.span = fields(unpacked.columns, "span");
    this.steps = column("step.start").length;
    this.requests = column("request.arrival").length;
    this.endNs = this.steps ? this.step.end[this.steps - 1] : 0;
    for (const arrival of this.request.arrival) this.endNs = Math.max(this.endNs, arrival);
    this.#indexReplicas();
    this.#indexSpans();
    this.#indexTimes();
  }

  #indexReplicas() {
    const count = Math.max(this.facts.replicas.length, 1);
    const { order, bounds } = groupBy(this.step.replica, count);
    this.replicas = Array.from({ length: count }, (_, place) => {
      const steps = order.subarray(bounds[place], bounds[place + 1]);
      return {
        steps,
        start: Float64Array.from(steps, (i) => this.step.start[i]),
        end: Float64Array.from(steps, (i) => this.step.end[i]),
      };
    });
    this.ordinal = new Int32Array(this.steps);
    for (const { steps } of this.replicas) steps.forEach((step, i) => (this.ordinal[step] = i));
    // Slots are numbered through: those of the second replica follow those of the first.
    this.replicaOfSlot = new Int32Array(this.slots);
    let from = 0;
    this.facts.replicas.forEach(({ slots }, place) => {
      this.replicaOfSlot.fill(place, from, from + slots);
      from += slots;
    });
  }

  #indexSpans() {
    const { slot, request, step, length, sampled } = this.span;
    const count = slot.length;
    this.spansOfSlot = groupBy(slot, this.slots);
    this.spansOfRequest = groupBy(request, this.requests);
    this.staysOfSlot = groupBy(this.stay.slot, this.slots);
    this.staysOfRequest = groupBy(this.stay.request, this.requests);
    this.spanOrdinal = Int32Array.from(step, (i) => this.ordinal[i]);
    this.firstToken = new Float64Array(this.requests + 1);
    this.tokensBefore = new Float64Array(count);
    let total = 0;
    for (let r = 0; r < this.requests; r++) {
      this.firstToken[r] = total;
      let own = 0;
      for (const i of members(this.spansOfRequest, r)) {
        this.tokensBefore[i] = own;
        own += length[i] * sampled[i];
      }
      total += own;
    }
    this.firstToken[this.requests] = total;
    this.batch = new Int32Array(this.steps);
    this.sampled = new Float64Array(this.steps);
    this.computed = new Float64Array(this.steps);
    for (let i = 0; i < count; i++) {
      const { steps } = this.replicas[this.replicaOfSlot[slot[i]]];
      for (let k = 0; k < length[i]; k++) {
        const at = steps[this.spanOrdinal[i] + k];
        this.batch[at]++;
        this.sampled[at] += sampled[i];
        this.computed[at] += this.span.computed[i];
      }
    }
  }

  #indexTimes() {
    this.arrivalTimes = sorted(this.request.arrival);
    this.endTimes = sorted(this.request.end.filter((at) => at !== ABSENT));
    this.stayStarts = sorted(this.stay.from);
    this.stayEnds = sorted(this.stay.to.filter((at) => at !== ABSENT));
    const byEnd = this.#stepsByEnd();
    this.stepEnds = Float64Array.from(byEnd, (i) => this.step.end[i]);
    this.tokensByEnd = sums(Float64Array.from(byEnd, (i) => this.sampled[i]));
    const queue = Float64Array.from(this.step.start, (at) => this.waitingCount(at));
    this.series = {
      waiting: new Extent(queue),
      batch: new Extent(this.batch),
      kv: this.step.kv.includes(ABSENT) ? null : new Extent(this.#kvSeries()),
    };
  }

  /** The steps in the order in which they end; steps of several replicas overlap. */
  #stepsByEnd() {
    const order = Uint32Array.from(this.step.end.keys());
    if (this.replicas.length === 1) return order;
    return order.sort((a, b) => this.step.end[a] - this.step.end[b] || a - b);
  }

  #kvSeries() {
    const last = new Float64Array(this.replicas.length);
    return Float64Array.from(this.step.kv, (used, i) => {
      last[this.step.replica[i]] = used;
      return last.reduce((sum, value) => sum + value, 0);
    });
  }

  /** The slots that a step could fill: all, or those of its replica. */
  slotsOf(step) {
    return this.facts.replicas.length ? this.facts.replicas[this.step.replica[step]].slots : this.slots;
  }

  stepsStarted(t) {
    return upTo(this.step.start, t);
  }

  stepsEnded(t) {
    return upTo(this.stepEnds, t);
  }

  outputTokens(t) {
    return this.tokensByEnd[this.stepsEnded(t)];
  }

  arrivedCount(t) {
    return upTo(this.arrivalTimes, t);
  }

  finishedCount(t) {
    return upTo(this.endTimes, t);
  }

  runningCount(t) {
    return upTo(this.stayStarts, t) - upTo(this.stayEnds, t);
  }

  waitingCount(t) {
    return this.arrivedCount(t) - this.finishedCount(t) - this.runningCount(t);
  }

  /** KV blocks held, as each replica's newest schedule left them; null where one does not say. */
  kvUsed(t) {
    let used = 0;
    for (const { steps, start } of this.replicas) {
      const started = upTo(start, t);
      if (!started) continue;
      if (this.step.kv[steps[started - 1]] === ABSENT) return null;
      used += this.step.kv[steps[started - 1]];
    }
    return used;
  }

  /** The steps that run at t, one a replica at most. */
  runningSteps(t) {
    const found = [];
    for (const { steps, start, end } of this.replicas) {
      const newest = upTo(start, t) - 1;
      if (newest >= 0 && end[newest] > t) found.push(steps[newest]);
    }
    return found;
  }

  /** The step that runs at t, else the newest that has started; ABSENT before the first. */
  newestStep(t) {
    const running = this.runningSteps(t);
    return running.length ? Math.max(...running) : this.stepsStarted(t) - 1;
  }

  /** The stay (index) of a slot at t, or ABSENT. */
  stayOfSlot(slot, t) {
    return this.#stayAt(this.staysOfSlot, slot, t);
  }

  /** The stay (index) of a request at t, or ABSENT. */
  stayOfRequest(request, t) {
    return this.#stayAt(this.staysOfRequest, request, t);
  }

  #stayAt({ order, bounds }, key, t) {
    let low = bounds[key];
    let high = bounds[key + 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.stay.from[order[middle]] <= t) low = middle + 1;
      else high = middle;
    }
    if (low === bounds[key]) return ABSENT;
    const stay = order[low - 1];
    return this.stay.to[stay] === ABSENT || this.stay.to[stay] > t ? stay : ABSENT;
  }

  /** What a slot holds at t, or null: the request, its phase and how far it is. */
  occupant(slot, t) {
    const stay = this.stayOfSlot(slot, t);
    if (stay === ABSENT) return null;
    const request = this.stay.request[stay];
    const output = this.outputTokensOf(request, t);
    const computed = this.computedTokens(stay, t);
    const known = this.request.prompt_tokens[request] + output;
    return {
      request,
      slot,
      computes: this.runningSteps(t).some((step) => this.member(slot, step)?.request === request),
      prefill: computed < known - 1 || !output,
      computed,
      output,
    };
  }

  /** Output tokens of a request by t. */
  outputTokensOf(request, t) {
    const entry = this.newestEntry(request, t);
    return entry ? this.tokensBefore[entry.span] + (entry.k + 1) * this.span.sampled[entry.span] : 0;
  }

  /** Tokens of a stay's request whose KV is there at t, the running step's not counted. */
  computedTokens(stay, t) {
    const entry = this.newestEntry(this.stay.request[stay], t);
    if (!entry) return this.stay.cached[stay];
    const { span, k } = entry;
    const step = this.stepOf(span, k);
    if (step < this.stay.first_step[stay]) return this.stay.cached[stay];
    const gained = this.span.decode[span] ? this.span.sampled[span] : this.span.computed[span];
    return this.span.position[span] + k + gained;
  }

  /** The step of a span's k-th entry. */
  stepOf(span, k) {
    return this.replicas[this.replicaOfSlot[this.span.slot[span]]].steps[this.spanOrdinal[span] + k];
  }

  /** The request's newest entry in a step that has ended by t: {span, k}, or null. */
  newestEntry(request, t) {
    const { order, bounds } = this.spansOfRequest;
    let low = bounds[request];
    let high = bounds[request + 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.step.end[this.span.step[order[middle]]] <= t) low = middle + 1;
      else high = middle;
    }
    if (low === bounds[request]) return null;
    const span = order[low - 1];
    const { end } = this.replicas[this.replicaOfSlot[this.span.slot[span]]];
    const first = this.spanOrdinal[span];
    return { span, k: upTo(end, t, first, first + this.span.length[span]) - first - 1 };
  }

  /** The index of the slot's span that holds a step, or ABSENT. */
  spanAt(slot, step) {
    if (this.step.replica[step] !== this.replicaOfSlot[slot]) return ABSENT;
    const ordinal = this.ordinal[step];
    const at = this.firstSpanAfter(slot, ordinal) - 1;
    if (at < this.spansOfSlot.bounds[slot]) return ABSENT;
    const span = this.spansOfSlot.order[at];
    return ordinal < this.spanOrdinal[span] + this.span.length[span] ? span : ABSENT;
  }

  /** The place in spansOfSlot.order of the slot's first span that begins after a step's ordinal. */
  firstSpanAfter(slot, ordinal) {
    const { order, bounds } = this.spansOfSlot;
    let low = bounds[slot];
    let high = bounds[slot + 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.spanOrdinal[order[middle]] <= ordinal) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** What a step computed in a slot: {request, decode, position, computed, sampled, drafted, token}, or null. */
  member(slot, step) {
    const span = this.spanAt(slot, step);
    if (span === ABSENT) return null;
    const k = this.ordinal[step] - this.spanOrdinal[span];
    const sampled = this.span.sampled[span];
    return {
      span,
      request: this.span.request[span],
      decode: Boolean(this.span.decode[span]),
      position: this.span.position[span] + k,
      computed: this.span.computed[span],
      drafted: this.span.drafted[span],
      sampled,
      token: this.tokensBefore[span] + k * sampled,
    };
  }

  /** The text of a request's output tokens from `from` up to but without `to`; null where the trace does not say. */
  text(request, from, to) {
    const base = this.firstToken[request];
    let found = "";
    for (let i = base + from; i < base + to; i++) {
      const code = this.columns["token.text"][i];
      if (code === ABSENT) return null;
      found += this.texts[code];
    }
    return found;
  }

  /** The id of a request's output token where its text is not known; null where the trace says neither. */
  tokenId(request, token) {
    const id = this.columns["token.id"][this.firstToken[request] + token];
    return id === undefined || id === ABSENT ? null : id;
  }

  /** The requests that wait at t: by priority, then the preempted first, then by number. */
  waiting(t) {
    const found = [];
    for (let r = 0; r < this.requests; r++) {
      const ended = this.request.end[r] !== ABSENT && this.request.end[r] <= t;
      if (this.request.arrival[r] <= t && !ended && this.stayOfRequest(r, t) === ABSENT) found.push(r);
    }
    const fresh = (r) => Number(!members(this.staysOfRequest, r).some((stay) => this.stay.from[stay] <= t));
    const key = (r) => [this.request.priority[r], fresh(r), r];
    return found.sort((a, b) => key(a).map((value, i) => value - key(b)[i]).find(Boolean) ?? 0);
  }

  /** Output tokens a second of the steps that touch a stretch of time; null where none does. */
  rate(from, to) {
    const last = Math.min(this.stepsEnded(to), this.steps - 1);
    if (!this.steps || from >= this.stepEnds[this.steps - 1] || to <= this.step.start[0]) return null;
    const first = this.stepsEnded(from);
    const begin = first ? this.stepEnds[first - 1] : this.step.start[0];
    const seconds = (this.stepEnds[last] - begin) / 1e9;
    return seconds > 0 ? (this.tokensByEnd[last + 1] - this.tokensByEnd[first]) / seconds : null;
  }
}

function fields(columns, table) {
  const prefix = `${table}.`;
  const own = Object.entries(columns).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(own.map(([name, values]) => [name.slice(prefix.length), values]));
}

/** The members of one group. */
export function members({ order, bounds }, key) {
  return order.subarray(bounds[key], bounds[key + 1]);
}
