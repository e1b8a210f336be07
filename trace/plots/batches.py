"""Figures of batch sizes: latency and throughput by slots, and what a step costs by the rows in it.

Under the measured step times stands a guess that is often taken for a measurement: that the efficiency of a batch of B
is max(0.5, 1 − 0.1 · ln B). It is drawn as what it is.
"""

import statistics
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from tracereel.trace.analysis.compare import Group
from tracereel.trace.analysis.metrics import Floats
from tracereel.trace.plots.style import WIDTH, Theme, legend
from tracereel.trace.state.columns import Ints, Trace

FEWEST_STEPS = 3
"""Steps of one size that a median is taken of."""


def policies_of(groups: Sequence[Group]) -> list[str]:
    """The policies, in the order in which they first appear."""
    return list(dict.fromkeys(group.traces[0].header.policy for group in groups))


def slot_counts(groups: Sequence[Group]) -> list[int]:
    """The numbers of slots that were run, ascending."""
    return sorted({group.traces[0].header.slots for group in groups})


def in_order(groups: Sequence[Group]) -> list[Group]:
    """The groups of a policy together, those with fewer slots first; else in the order in which they come."""
    policies = policies_of(groups)
    return sorted(
        groups, key=lambda group: (policies.index(group.traces[0].header.policy), group.traces[0].header.slots)
    )


def batch(groups: Sequence[Group], theme: Theme) -> Figure:
    """Throughput and latency against slots for each policy: median of the runs, lowest to highest."""
    columns = (
        ("output_throughput", "output throughput, tokens/s"),
        ("tpot_ms.p50", "TPOT p50, ms"),
        ("ttft_ms.p50", "TTFT p50, ms"),
        ("e2el_ms.p50", "E2EL p50, ms"),
    )
    figure = Figure(figsize=(WIDTH, 5.0))
    panels = figure.subplots(2, 2, sharex=True)
    policies, sizes = policies_of(groups), slot_counts(groups)
    for panel, (name, called) in zip(panels.flat, columns, strict=True):
        for i, policy in enumerate(policies):
            own = sorted(
                (group for group in groups if group.traces[0].header.policy == policy),
                key=lambda group: group.traces[0].header.slots,
            )
            points = [
                (group.traces[0].header.slots, statistics.median(known), min(known), max(known))
                for group in own
                if (known := [value for value in group.values[name] if value is not None])
            ]
            at, middle, low, high = np.array(points).T
            panel.errorbar(
                at, middle, yerr=[middle - low, high - middle], color=theme.case(i), marker="o", ms=4, capsize=2
            )
        panel.set_title(called)
        panel.set_ylim(0)
        _by_powers_of_two(panel, sizes)
    for panel in panels[-1]:
        panel.set_xlabel("slots")
    marks = [Line2D([], [], color=theme.case(i), marker="o", ms=4) for i in range(len(policies))]
    legend(figure, marks, policies)
    return figure


def steps(groups: Sequence[Group], theme: Theme) -> Figure:
    """Time of a decode step against the rows in it, and the guess of what it would be; and the efficiency."""
    figure = Figure(figsize=(WIDTH, 3.4))
    left, right = figure.subplots(1, 2)
    policies = policies_of(groups)
    measured = {policy: _step_times(groups, policy) for policy in policies}
    sizes = sorted({size for times in measured.values() for size in times})
    # The guess says nothing of the smallest batch: it starts from what that took, whichever policy ran it.
    anchor = sizes[0]
    anchor_ms = statistics.median(float(np.median(times[anchor])) for times in measured.values() if anchor in times)
    at = np.linspace(anchor, max(sizes[-1], anchor + 1), 200)
    guessed_ms = anchor_ms * efficiency_guess(float(anchor)) / efficiency_guess(at)
    left.plot(at, guessed_ms, color=theme.dim, ls="--", lw=1.3, zorder=1)
    right.plot(at, efficiency_guess(at) / efficiency_guess(float(anchor)), color=theme.dim, ls="--", lw=1.3, zorder=1)
    for i, times in enumerate(measured.values()):
        if not times:
            continue
        own = sorted(times)
        low, middle, high = np.array([np.percentile(times[size], [25, 50, 75]) for size in own]).T
        spread = [middle - low, high - middle]
        at = np.array(own) + (i - (len(policies) - 1) / 2) * sizes[-1] / 100  # the bars must not hide each other
        left.errorbar(at, middle, yerr=spread, color=theme.case(i), marker="o", ms=3.5, lw=1.2, capsize=2)
        right.plot(own, anchor_ms / middle, color=theme.case(i), marker="o", ms=3.5, lw=1.2)
    left.set_title("time of a decode step, ms (median, quartiles)")
    right.set_title(f"efficiency: time at B = {anchor} / time at B")
    for panel in (left, right):
        panel.set_xlabel("rows B of the step")
        panel.set_ylim(0)
        panel.set_xlim(anchor - 0.04 * sizes[-1], 1.04 * sizes[-1])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    marks = [Line2D([], [], color=theme.case(i), marker="o", ms=4) for i in range(len(policies))]
    marks.append(Line2D([], [], color=theme.dim, ls="--"))
    legend(figure, marks, [*policies, "not measured, a guess: efficiency max(0.5, 1 − 0.1 ln B)"])
    return figure


def measures_steps(groups: Sequence[Group]) -> bool:
    """Is there a number of rows of which enough steps were made to say what one takes?"""
    return any(_step_times(groups, policy) for policy in policies_of(groups))


def efficiency_guess(size: Floats | float) -> Floats:
    """The guess: how much of the speed of a lone sequence each of B has left."""
    return np.maximum(0.5, 1 - 0.1 * np.log(size))


def _step_times(groups: Sequence[Group], policy: str) -> dict[int, Floats]:
    """For each number of rows the times (ms) of a policy's steps that only decode; rows are members and padding."""
    rows, times = [np.empty(0, np.int64)], [np.empty(0)]
    for trace in (trace for group in groups for trace in group.traces if trace.header.policy == policy):
        own, ms = _decode_steps(trace)
        rows.append(own)
        times.append(ms)
    size, ms = np.concatenate(rows), np.concatenate(times)
    found = {int(each): ms[size == each] for each in np.unique(size)}
    return {each: sample for each, sample in found.items() if len(sample) >= FEWEST_STEPS}


def _decode_steps(trace: Trace) -> tuple[Ints, Floats]:
    steps = trace.steps
    sums = np.concatenate([[0], np.cumsum(~steps.member_decode, dtype=np.int64)])
    prefills = sums[steps.first_member[1:]] - sums[steps.first_member[:-1]]
    only = (prefills == 0) & (steps.batch > 0)
    return (steps.batch + steps.padding)[only], ((steps.end_ns - steps.start_ns) / 1e6)[only]


def _by_powers_of_two(panel: Axes, sizes: Sequence[int]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())
