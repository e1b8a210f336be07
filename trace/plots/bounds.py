"""The figure of what bound each step: shares over time, by the rule of `analysis.step_bounds`."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tracereel.trace.analysis.compare import Group
from tracereel.trace.analysis.pairs import median_run
from tracereel.trace.analysis.step_bounds import BOUNDS, WORDS, step_bounds
from tracereel.trace.plots.runs import TIME, longest_s, shown
from tracereel.trace.plots.style import WIDTH, Theme, legend
from tracereel.trace.state.columns import Trace

Floats = npt.NDArray[np.float64]
BINS = 120
"""Equal parts of a run's time, each with shares of its own."""


def bounds(groups: Sequence[Group], theme: Theme) -> Figure:
    """What kept further requests out of the steps, as shares of time; the median run of each case below the other."""
    traces = [median_run(group.traces) for group in groups]
    figure = Figure(figsize=(WIDTH, 0.9 + 1.15 * len(traces)))
    panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
    nobody, loading, unknown = theme.line, theme.prefill, theme.dim
    colours = (nobody, *(theme.case(i) for i in range(len(BOUNDS) - 3)), loading, unknown)
    seen = np.zeros(len(BOUNDS), bool)
    for panel, trace, group in zip(panels, traces, groups, strict=True):
        edges = np.linspace(*trace.span_ns, BINS + 1)
        shares = shares_over_time(trace, edges)
        seen[step_bounds(trace)] = True
        seconds, below = np.linspace(0, longest_s(trace), BINS + 1), np.zeros(BINS)
        for share, colour in zip(shares, colours, strict=True):
            panel.stairs(below + 100 * share, seconds, baseline=below, fill=True, color=colour, linewidth=0)
            below = below + 100 * share
        panel.set_title(f"what bound the steps: {group.label}, {shown(group)}")
        panel.set_ylim(0, 100)
        panel.set_ylabel("% of time")
    panels[-1].set_xlabel(TIME)
    panels[-1].set_xlim(0, max(longest_s(trace) for trace in traces))
    entries = [(Patch(color=colours[i]), WORDS[BOUNDS[i]]) for i in np.flatnonzero(seen)]
    legend(figure, *zip(*entries, strict=True))
    return figure


def shares_over_time(trace: Trace, edges: Floats) -> Floats:
    """For each of BOUNDS a row: of the time between two `edges` (ns, ascending) the share of steps that it bound.

    What is missing to 1 is time without a step. In a merged trace, whose steps overlap, a replica's share counts for
    its part of all replicas.
    """
    steps = trace.steps
    bound = step_bounds(trace)
    spans = np.diff(edges) * max(len(trace.header.replicas), 1)
    rows = [_time_below(edges, steps.start_ns[bound == i], steps.end_ns[bound == i]) for i in range(len(BOUNDS))]
    return np.diff(np.array(rows), axis=1) / spans


def _time_below(edges: Floats, start_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64]) -> Floats:
    """The time of these steps before each edge."""
    return _elapsed(edges, start_ns) - _elapsed(edges, end_ns)


def _elapsed(edges: Floats, instants: npt.NDArray[np.int64]) -> Floats:
    """Σ max(edge − instant, 0) for each edge."""
    own = np.sort(instants).astype(np.float64)
    sums: Floats = np.concatenate([[0.0], np.cumsum(own)])
    count = np.searchsorted(own, edges)
    elapsed: Floats = count * edges - sums[count]
    return elapsed
