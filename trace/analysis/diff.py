"""What an engine change moved: metrics, the schedule, and the requests that were helped and hurt most.

Knows two sets of runs, an older and a newer one. Does not know what was changed, nor how a difference is shown.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tracereel.trace.analysis.comparable import require_same_work
from tracereel.trace.analysis.compare import Estimate, Group, estimate, group_runs
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.pairs import median_run
from tracereel.trace.analysis.registry import compared
from tracereel.trace.analysis.step_bounds import bound_shares
from tracereel.trace.state.columns import Trace


class NothingInCommonError(Exception):
    """Two sets of runs cannot be matched case by case; the message names the cases."""


@dataclass(frozen=True)
class Parting:
    """The first step in which two schedules differ, and what only the older or only the newer one does in it.

    `old` and `new` are empty where the run has ended before that step.
    """

    step: int
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True)
class RequestChange:
    """A request's E2EL before and after, in milliseconds: the medians of the runs."""

    id: str
    old_ms: float
    new_ms: float


@dataclass(frozen=True)
class Difference:
    """One case before and after. `requests` are those that completed in every run, the most helped one first."""

    old: Group
    new: Group
    metrics: dict[str, Estimate | None]
    """New over old, for each of `registry.compared`."""
    bounds: tuple[dict[str, float], dict[str, float]]
    """What bound the steps of the median runs, old and new, as `bound_shares` says it."""
    parting: Parting | None
    """Between the median runs; None where they made the same steps."""
    requests: tuple[RequestChange, ...]


def differences(old: Sequence[Trace], new: Sequence[Trace]) -> Iterator[Difference]:
    """The differences of every case that both have, or of the only case of each, whatever its name.

    Raises NothingInCommonError, and NotComparableError where the two sides of a case do not measure the same work.
    """
    sides = [_by_case(group_runs(traces)) for traces in (old, new)]
    matched = [(group, sides[1][case]) for case, group in sides[0].items() if case in sides[1]]
    if len(sides[0]) == len(sides[1]) == 1:
        matched = list(zip(sides[0].values(), sides[1].values(), strict=True))
    if not matched:
        cases = [", ".join(sorted(side)) for side in sides]
        raise NothingInCommonError(f"the two have no case in common: {cases[0]} there, {cases[1]} here")
    for before, after in matched:
        _require_same_work(before.traces, after.traces)
        runs = median_run(before.traces), median_run(after.traces)
        yield Difference(
            old=before,
            new=after,
            metrics={name: estimate(before, after, name) for name in compared()},
            bounds=(bound_shares(runs[0]), bound_shares(runs[1])),
            parting=parting(*runs),
            requests=_request_changes(before.traces, after.traces),
        )


def _require_same_work(old: Sequence[Trace], new: Sequence[Trace]) -> None:
    """Raise NotComparableError where the sides do not measure the same work; settings may be what was changed."""
    kept = {trace.digest for trace in old}
    require_same_work([*old, *(trace for trace in new if trace.digest not in kept)])


def _by_case(groups: Sequence[Group]) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for group in groups:
        case = case_of(group.traces[0])
        if case in found:
            raise NothingInCommonError(
                f"one side holds different runs of one case: {found[case].label}, {group.label}; name a folder of each"
            )
        found[case] = group
    return found


def case_of(trace: Trace) -> str:
    """The case a run belongs to, or its policy where it is of no suite."""
    return trace.header.run.case if trace.header.run else trace.header.policy


def parting(old: Trace, new: Trace) -> Parting | None:
    """Where the schedules of two runs part; requests are the same where their ids are."""
    number = {arrival.id: request for request, arrival in enumerate(old.arrivals)}
    same = np.array([number.get(arrival.id, -1) for arrival in new.arrivals], dtype=np.int64)
    steps = min(len(old.steps), len(new.steps))
    unequal = np.flatnonzero(old.steps.batch[:steps] != new.steps.batch[:steps])
    first = int(unequal[0]) if len(unequal) else steps
    members = int(old.steps.first_member[first])
    differs = old.steps.member_request[:members] != same[new.steps.member_request[:members]]
    for name in ("member_slot", "member_decode", "member_position", "member_computed"):
        differs |= getattr(old.steps, name)[:members] != getattr(new.steps, name)[:members]
    if differs.any():
        first = int(np.searchsorted(old.steps.first_member, int(differs.argmax()), side="right")) - 1
    elif first == len(old.steps) == len(new.steps):
        return None
    said = [_members(trace, first) for trace in (old, new)]
    longer = old if first < len(old.steps) else new
    return Parting(
        step=int(longer.steps.index[first]),
        old=tuple(member for member in said[0] if member not in said[1]),
        new=tuple(member for member in said[1] if member not in said[0]),
    )


def _members(trace: Trace, i: int) -> list[str]:
    """Each member of step i in words."""
    if i >= len(trace.steps):
        return []
    steps, at = trace.steps, trace.steps.members(i)
    columns = (steps.member_request, steps.member_slot, steps.member_decode, steps.member_position)
    rows = zip(*(column[at].tolist() for column in (*columns, steps.member_computed)), strict=True)
    return [
        f"{trace.arrivals[request].id} in slot {slot} "
        + (f"decodes at position {position}" if decode else f"prefills {computed} tokens from position {position}")
        for request, slot, decode, position, computed in rows
    ]


def _request_changes(old: Sequence[Trace], new: Sequence[Trace]) -> tuple[RequestChange, ...]:
    before, after = _e2el_by_id(old), _e2el_by_id(new)
    changes = [RequestChange(name, before[name], after[name]) for name in before if name in after]
    return tuple(sorted(changes, key=lambda change: change.new_ms - change.old_ms))


def _e2el_by_id(traces: Sequence[Trace]) -> dict[str, float]:
    """The median E2EL of each request that completed in every run."""
    found: dict[str, list[float]] = {}
    for trace in traces:
        metrics = Metrics(trace)
        for request, e2el in zip(metrics.completed.tolist(), metrics.e2el_ms.tolist(), strict=True):
            found.setdefault(trace.arrivals[request].id, []).append(e2el)
    return {name: statistics.median(values) for name, values in found.items() if len(values) == len(traces)}
