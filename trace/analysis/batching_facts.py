"""What is true of a run as a rule, found in its records: how freed slots are taken, who advances, who came when.

For sentences that would otherwise be said of any trace. Knows one trace at a time; gives no figures.
"""

from enum import Enum

import numpy as np
from tracereel.trace.state.columns import ABSENT, NEVER_NS, Ints, Trace


class Refill(Enum):
    """What becomes of a slot whose request has ended."""

    RUNNING = "running"
    """Another request gets one while others still run."""
    CLOSED = "closed"
    """It is empty while others still run, and is taken when none does: static batching."""
    ALONE = "alone"
    """Others get theirs later, but the request that ended was the only one: a single slot, or requests far apart."""
    NEVER = "never"
    """No request gets one after another has ended."""


def refill(trace: Trace) -> Refill:
    """How requests come to their slots after the first of them has ended."""
    residencies = trace.residencies
    ended = np.sort(residencies.to_ns[residencies.to_ns != NEVER_NS])
    came = residencies.from_ns[residencies.from_ns >= ended[0]] if len(ended) else ended
    if not len(came):
        return Refill.NEVER
    order = np.argsort(residencies.from_ns, kind="stable")
    starts, reach = residencies.from_ns[order], np.maximum.accumulate(residencies.to_ns[order])

    def somebody_ran(freed: Ints, until: Ints) -> bool:
        """Did anybody run when a slot was freed, and still at the instant that belongs to it?"""
        before = np.searchsorted(starts, freed, side="left")
        return bool((reach[before - 1] > until)[before > 0].any())

    if somebody_ran(ended[np.searchsorted(ended, came, side="right") - 1], came):
        return Refill.RUNNING
    return Refill.CLOSED if somebody_ran(ended, ended) else Refill.ALONE


def all_advance(trace: Trace) -> bool:
    """Are in most steps all requests members that hold a slot, of the step's replica where there are several?"""
    residencies, steps = trace.residencies, trace.steps
    replica_of = np.array([arrival.replica for arrival in trace.arrivals], dtype=np.int64)[residencies.request]
    last = np.where(residencies.last_step == ABSENT, len(steps) - 1, residencies.last_step)
    advance = 0
    for replica in np.unique(steps.replica):
        own = replica_of == replica
        change = np.zeros(len(steps) + 1, dtype=np.int64)
        np.add.at(change, residencies.first_step[own], 1)
        np.add.at(change, last[own] + 1, -1)
        held = change[:-1].cumsum()
        advance += int(((steps.batch >= held) & (steps.replica == replica)).sum())
    return 2 * advance > len(steps)


def came_together(trace: Trace) -> bool:
    """Had all requests arrived before the first step?"""
    first = int(trace.steps.start_ns[0]) if len(trace.steps) else 0
    return all(arrival.arrival_ns <= first for arrival in trace.arrivals)


def longest_waiting_first(trace: Trace) -> bool:
    """Does every step that decodes advance one of those whose last step is the longest ago, of all that decode?

    A request decodes from its first output token to its last.
    """
    steps = trace.steps
    last_step: dict[int, int] = {}
    out: dict[int, int] = {}
    final = _tokens_of(trace)
    decoded = False
    for step in range(len(steps)):
        entries = steps.members(step)
        members = steps.member_request[entries].tolist()
        decoding = [r for r, decodes in zip(members, steps.member_decode[entries].tolist(), strict=True) if decodes]
        ready = [request for request, count in out.items() if 0 < count < final[request]]
        if decoding and ready:
            decoded = True
            oldest = min(last_step[request] for request in ready)
            if not any(last_step.get(request) == oldest for request in decoding):
                return False
        for request in members:
            last_step[request] = step
        for request in steps.token_request[steps.first_token[step] : steps.first_token[step + 1]].tolist():
            out[request] = out.get(request, 0) + 1
    return decoded


def _tokens_of(trace: Trace) -> list[int]:
    """Output tokens of every request."""
    counts: list[int] = np.bincount(trace.steps.token_request, minlength=len(trace.arrivals)).tolist()
    return counts


def queued(trace: Trace) -> bool:
    """Did a request wait for a slot: was every slot held in some step, and did requests wait at the same time?"""
    steps = trace.steps
    return bool(((steps.waiting > 0) & (steps.running >= trace.step_slots)).any())
