// A step and a cell in words: whom a step admitted, what bound it, what was computed where.

import { members } from "./run.js";
import { duration, number, oneLine, requestName, say } from "./words.js";

const MOST_NAMED = 12;

/** Who came and went with a step, and what it cost: pairs of [term, text]. */
export function stepFacts(run, step, bounds) {
  const found = [
    [say("step"), say("step_is", { step: number(run.step.index[step]), ms: duration(stepNs(run, step)) })],
    [say("batch"), say("batch_is", { rows: number(run.batch[step]), slots: number(run.slotsOf(step)), tokens: number(run.computed[step]), out: number(run.sampled[step]) })],
  ];
  if (run.step.device[step] >= 0) found.push([say("device_time"), duration(run.step.device[step])]);
  if (run.step.padding[step]) found.push([say("padding"), number(run.step.padding[step])]);
  const changes = changesOf(run, step);
  for (const key of ["admitted", "preempted", "finished"]) {
    if (changes[key].length) found.push([say(key), names(changes[key])]);
  }
  found.push([say("bound"), say(`bound_${bounds[run.step.bound[step]]}`)]);
  return found;
}

export function stepNs(run, step) {
  return run.step.end[step] - run.step.start[step];
}

function names(requests) {
  const shown = requests.slice(0, MOST_NAMED).map(requestName).join(", ");
  const more = requests.length - MOST_NAMED;
  return more > 0 ? say("and_more", { names: shown, count: number(more) }) : shown;
}

/** The requests that a step admitted and preempted, and that ended with it. */
export function changesOf(run, step) {
  const { stay, request } = run;
  const found = { admitted: [], preempted: [], finished: [] };
  for (let i = 0; i < stay.request.length; i++) {
    if (stay.first_step[i] === step) found.admitted.push(stay.request[i]);
    if (stay.preempted[i] && stay.to[i] === run.step.start[step]) found.preempted.push(stay.request[i]);
    if (!stay.preempted[i] && stay.last_step[i] === step && request.end[stay.request[i]] === run.step.end[step]) {
      found.finished.push(stay.request[i]);
    }
  }
  return found;
}

/** A cell in one sentence, for the eye and for a screen reader. */
export function cellSentence(run, slot, step) {
  const where = say("cell_where", { slot, step: number(run.step.index[step]), ms: duration(stepNs(run, step)) });
  const member = run.member(slot, step);
  if (!member) {
    const stay = run.stayOfSlot(slot, run.step.start[step]);
    const held = stay >= 0 ? say("cell_held", { request: requestName(run.stay.request[stay]) }) : say("cell_idle");
    return `${where} ${held}`;
  }
  const facts = {
    request: requestName(member.request),
    position: number(member.position),
    computed: number(member.computed),
    token: tokenOf(run, member),
  };
  const said = [say(member.decode ? "cell_decode" : "cell_prefill", facts)];
  if (member.drafted > 0) said.push(say("cell_drafted", { drafted: number(member.drafted), sampled: number(member.sampled) }));
  if (member.sampled) said.push(say("cell_token", facts));
  return `${where} ${said.join(" ")}`;
}

/** What a member wrote: its text, or the id where the text is not known. */
function tokenOf(run, member) {
  const text = run.text(member.request, member.token, member.token + member.sampled);
  if (text !== null) return text ? `“${oneLine(text)}”` : say("token_empty");
  const id = run.tokenId(member.request, member.token);
  return id === null ? say("token_unknown") : say("token_id", { id });
}

/** The whole life of a request: [{at, text}] in the order of time, `at` in ns or null for what is no instant. */
export function lifeOf(run, request) {
  const arrival = run.request.arrival[request];
  const found = [{ at: arrival, text: say("life_arrived", { tokens: number(run.request.prompt_tokens[request]) }) }];
  let waitingSince = arrival;
  members(run.staysOfRequest, request).forEach((stay) => {
    const from = run.stay.from[stay];
    const cached = run.stay.cached[stay];
    const facts = { waited: duration(from - waitingSince), slot: run.stay.slot[stay], cached: number(cached) };
    found.push({ at: from, text: say(cached ? "life_admitted_cached" : "life_admitted", facts) });
    if (run.stay.preempted[stay]) {
      waitingSince = run.stay.to[stay];
      found.push({ at: waitingSince, text: say("life_preempted") });
    }
  });
  found.push(...computations(run, request));
  const end = run.request.end[request];
  if (end >= 0) {
    const reason = run.reasons[run.request.reason[request]];
    const tokens = run.firstToken[request + 1] - run.firstToken[request];
    found.push({ at: end, text: say("life_finished", { reason, tokens: number(tokens), e2el: duration(end - arrival) }) });
  }
  const order = found.map((event, i) => ({ ...event, i }));
  return order.sort((a, b) => a.at - b.at || a.i - b.i);
}

function computations(run, request) {
  const found = [];
  let first = null;
  for (const span of members(run.spansOfRequest, request)) {
    const begin = run.span.step[span];
    const last = run.stepOf(span, run.span.length[span] - 1);
    if (!run.span.decode[span]) {
      const facts = { tokens: number(run.span.computed[span]), position: number(run.span.position[span]), ms: duration(stepNs(run, begin)) };
      found.push({ at: run.step.start[begin], text: say("life_prefill", facts) });
    }
    if (run.span.sampled[span] && first === null) {
      first = run.step.end[begin];
      found.push({ at: first, text: say("life_first_token", { ttft: duration(first - run.request.arrival[request]) }) });
    }
    const tokens = run.span.length[span] * run.span.sampled[span];
    if (run.span.decode[span] && tokens) {
      const ns = run.step.end[last] - run.step.start[begin];
      found.push({ at: run.step.start[begin], text: say("life_decode", { tokens: number(tokens), each: duration(ns / tokens) }) });
    }
  }
  return merged(found);
}

const MOST_EVENTS = 40;

/** At most so many lines: where decoding is in many pieces the middle ones are counted, not listed. */
function merged(found) {
  if (found.length <= MOST_EVENTS) return found;
  const left = found.length - MOST_EVENTS;
  const middle = { at: found[MOST_EVENTS - 1].at, text: say("life_more", { count: number(left) }) };
  return [...found.slice(0, MOST_EVENTS - 1), middle, found.at(-1)];
}
