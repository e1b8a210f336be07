// Instants worth going to: the next admission, finish, preemption, step; the slowest step, the longest waits.

import { ABSENT } from "./run.js";
import { sorted, upTo } from "./search.js";

/** The instants of one run; each jump gives {t, request?, step?}, or null where there is none. */
export class Jumps {
  constructor(run) {
    this.run = run;
    const { stay, request } = run;
    this.times = {
      admission: sorted(stay.from),
      finish: sorted(request.end.filter((at) => at !== ABSENT)),
      preemption: sorted(stay.to.filter((at, i) => at !== ABSENT && stay.preempted[i])),
      step: sorted(run.step.start),
    };
  }

  /** The next instant of a kind after t. */
  next(kind, t) {
    const times = this.times[kind];
    const at = upTo(times, t);
    return at < times.length ? this.#at(times[at]) : null;
  }

  /** The last instant of a kind before t. */
  previous(kind, t) {
    const times = this.times[kind];
    let at = upTo(times, t) - 1;
    while (at >= 0 && times[at] >= t) at--;
    return at >= 0 ? this.#at(times[at]) : null;
  }

  #at(t) {
    const { run } = this;
    const stay = run.stay.from.findLastIndex((from) => from === t);
    const request = stay >= 0 ? run.stay.request[stay] : run.request.end.indexOf(t);
    return { t, request: request >= 0 ? request : undefined };
  }

  slowestStep() {
    const step = this.run.facts.moments.slowest_step;
    return step === null ? null : { t: this.run.step.start[step], step };
  }

  longestWait() {
    const request = this.run.facts.moments.longest_wait_request;
    if (request === null) return null;
    return { t: this.run.request.arrival[request] + this.run.facts.moments.longest_wait_ns, request };
  }

  worstPause() {
    const { worst_pause_request: request, worst_pause_to_ns: to } = this.run.facts.moments;
    return request === null ? null : { t: to - this.run.facts.begin_ns, request };
  }
}
