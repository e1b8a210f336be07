"""The whole run at an instant: who waits and runs, and what has come out so far."""

import re
from collections.abc import Iterable

from tracereel.trace.analysis.query import Answer, Run, lines_of_steps, lines_so_far, query


@query
def engine_time_s(run: Run, *, t_ns: int) -> Answer:
    """Engine time t itself, in seconds."""
    return t_ns / 1e9, lines_so_far(run, t_ns)


@query
def waiting(run: Run, *, t_ns: int) -> Answer:
    """Requests in the waiting queue at engine time t."""
    return run.timeline.at(t_ns).num_waiting, lines_so_far(run, t_ns)


@query
def running(run: Run, *, t_ns: int) -> Answer:
    """Requests that hold a slot at engine time t."""
    return run.timeline.at(t_ns).num_running, lines_so_far(run, t_ns)


@query
def finished(run: Run, *, t_ns: int) -> Answer:
    """Requests that have ended by engine time t."""
    return run.timeline.at(t_ns).num_finished, lines_so_far(run, t_ns)


@query
def prefilling(run: Run, *, t_ns: int) -> Answer:
    """Requests in a slot that lack KV for tokens they have, at engine time t."""
    occupancy = run.timeline.at(t_ns).occupancy
    return sum(occupant is not None and occupant.prefill for occupant in occupancy), lines_so_far(run, t_ns)


@query
def decoding(run: Run, *, t_ns: int) -> Answer:
    """Requests in a slot that lack KV for their newest token alone, at engine time t."""
    occupancy = run.timeline.at(t_ns).occupancy
    return sum(occupant is not None and not occupant.prefill for occupant in occupancy), lines_so_far(run, t_ns)


@query
def waiting_beyond(run: Run, *, t_ns: int, shown: int) -> Answer:
    """Requests in the waiting queue at engine time t beyond the first `shown`."""
    return max(run.timeline.at(t_ns).num_waiting - shown, 0), lines_so_far(run, t_ns)


@query
def finished_beyond(run: Run, *, t_ns: int, shown: int) -> Answer:
    """Requests that have ended by engine time t before the newest `shown`."""
    return max(run.timeline.at(t_ns).num_finished - shown, 0), lines_so_far(run, t_ns)


@query
def slots_beyond(run: Run, *, shown: int) -> Answer:
    """Slots beyond the first `shown`."""
    return max(run.trace.header.slots - shown, 0), (1, 1)


@query
def blocks_beyond(run: Run, *, shown: int) -> Answer:
    """KV blocks of the pool beyond the first `shown`. Raises ValueError where the trace says of no pool."""
    blocks = run.trace.header.kv_blocks
    if blocks is None:
        raise ValueError(f"{run.trace.path}: does not say how many KV blocks there are")
    return max(blocks - shown, 0), (1, 1)


@query
def slots_drawn(run: Run, *, which: str) -> Answer:
    """How many of the run's slots are those that are drawn, as `slot_ranges` writes them.

    Raises ValueError where `which` names none, or one that the run does not have.
    """
    if not _RANGES.fullmatch(which):
        raise ValueError(f"{which[:40]!r} names no slots; they are named as in 0-3,7")
    drawn: set[int] = set()
    for part in which.split(","):
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) < run.trace.header.slots:
            raise ValueError(f"the run has no slots {part}")
        drawn.update(range(int(first), int(last or first) + 1))
    return len(drawn), (1, 1)


_RANGES = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?){0,999}")


def slot_ranges(slots: Iterable[int]) -> str:
    """Slots in the words of `slots_drawn`: `0-3,7`."""
    runs: list[list[int]] = []
    for slot in sorted(set(slots)):
        if runs and runs[-1][1] == slot - 1:
            runs[-1][1] = slot
        else:
            runs.append([slot, slot])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


@query
def output_tokens(run: Run, *, t_ns: int) -> Answer:
    """Output tokens of all requests by engine time t."""
    return run.timeline.at(t_ns).output_tokens, lines_so_far(run, t_ns)


@query
def idle_slot_steps(run: Run, *, t_ns: int) -> Answer:
    """Slot-steps by engine time t in which no sequence advanced in the slot: slots x steps - members of the steps."""
    return run.timeline.idle_slot_steps_at(t_ns), lines_of_steps(run, 0, run.timeline.steps_ended(t_ns))


@query
def idle_while_waiting(run: Run, *, t_ns: int) -> Answer:
    """Slot-steps by engine time t in which a slot was idle while at least one request waited in the queue."""
    ended = run.timeline.steps_ended(t_ns)
    return run.timeline.idle_while_waiting_at(t_ns), lines_of_steps(run, 0, ended)


@query
def batch(run: Run, *, t_ns: int) -> Answer:
    """Members of the step that runs at engine time t, or of the newest one between steps; 0 before the first."""
    started = run.timeline.steps_started(t_ns)
    if not started:
        return 0, (1, 1)
    return int(run.trace.steps.batch[started - 1]), lines_of_steps(run, started - 1, started)


@query
def decoding_in_step(run: Run, *, t_ns: int) -> Answer:
    """Members that decode in the step that runs at engine time t, or in the newest one; 0 before the first."""
    started = run.timeline.steps_started(t_ns)
    if not started:
        return 0, (1, 1)
    steps = run.trace.steps
    return int(steps.member_decode[steps.members(started - 1)].sum()), lines_of_steps(run, started - 1, started)


@query
def mean_decoding(run: Run, *, from_ns: int, to_ns: int) -> Answer:
    """Sequences that a step decodes on average, of the steps that ran between two engine times.

    Raises ValueError where none ran.
    """
    first, started = run.timeline.steps_ended(from_ns), run.timeline.steps_started(to_ns)
    if started <= first:
        raise ValueError(f"no step ran from {from_ns} ns to {to_ns} ns")
    steps = run.trace.steps
    inside = (steps.member_step >= first) & (steps.member_step < started)
    return float((steps.member_decode & inside).sum()) / (started - first), lines_of_steps(run, first, started)


@query
def ms_per_token(run: Run, *, t_ns: int) -> Answer:
    """Engine time since the first arrival for each output token so far, in ms; once the last is out, of the run."""
    state = run.timeline.at(t_ns)
    if not state.output_tokens:
        raise ValueError(f"there is no output token at {t_ns} ns")
    begin = run.timeline.arrival_times[0]
    last = int(run.trace.steps.end_ns[run.trace.steps.token_step[-1]])
    return (min(t_ns, last) - begin) / 1e6 / state.output_tokens, lines_so_far(run, t_ns)


@query
def us_per_token(run: Run, *, t_ns: int) -> Answer:
    """`ms_per_token` in microseconds."""
    ms, lines = ms_per_token(run, t_ns=t_ns)
    return float(ms) * 1e3, lines
