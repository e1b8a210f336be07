"""Figures of runs: which request held which slot when, tokens over time, latencies, queue and KV blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from tracereel.trace.analysis.comparable import differing_settings
from tracereel.trace.analysis.compare import Group
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.pairs import median_run, throughput_ratio
from tracereel.trace.plots.style import WIDTH, Theme, legend
from tracereel.trace.state.columns import ABSENT, Ints, Trace
from tracereel.trace.state.replicas import over_replicas

Floats = npt.NDArray[np.float64]
POINTS = 2000
"""Points of a line: more would be finer than paper."""
MOST_SLOTS = 64
TIME = "time since the first arrival, s"
"""What every axis of time says: runs begin together, whenever their recordings did."""
LONG_MS = 5000
"""From here on an axis is in seconds."""


def since_arrival_s(trace: Trace, at_ns: Ints) -> Floats:
    """Seconds since the run's first arrival."""
    seconds: Floats = (at_ns - trace.span_ns[0]) / 1e9
    return seconds


def longest_s(trace: Trace) -> float:
    """Seconds from the run's first arrival to the end of its last step."""
    begin_ns, end_ns = trace.span_ns
    return (end_ns - begin_ns) / 1e9


def slots(groups: Sequence[Group], theme: Theme) -> Figure:
    """The requests in the slots over time, the median run of each case below the other."""
    traces = [median_run(group.traces) for group in groups]
    heights = [_height(min(trace.header.slots, MOST_SLOTS)) for trace in traces]
    figure = Figure(figsize=(WIDTH, 0.9 + sum(0.17 * height + 0.35 for height in heights)))
    panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for panel, trace, group in zip(panels, traces, groups, strict=True):
        _draw_slots(panel, trace, theme)
        panel.set_title(f"{group.label}, {shown(group)}")
    panels[-1].set_xlabel(TIME)
    panels[-1].set_xlim(0, max(longest_s(trace) for trace in traces))
    colours = (theme.prefill, theme.case(0), _faint(theme.case(0), theme), theme.idle)
    marks = [Patch(color=colour) for colour in colours]
    legend(figure, marks, ["prefill", "decode (requests in alternating shades)", "held, not advancing", "empty"])
    return figure


def _height(slots: int) -> float:
    """Rows of a panel: of many slots each is slimmer, or a sweep would not fit on a page."""
    return max(min(slots, 8) + max(slots - 8, 0) * 0.4, 3)


def _faint(colour: str, theme: Theme, share: float = 0.75) -> tuple[float, float, float]:
    """The colour with that share of the ground in it."""
    r, g, b = (
        own + (under - own) * share for own, under in zip(to_rgba(colour)[:3], to_rgba(theme.ground)[:3], strict=True)
    )
    return r, g, b


def _draw_slots(panel: Axes, trace: Trace, theme: Theme) -> None:
    residencies, (_, end_ns) = trace.residencies, trace.span_ns
    shown = min(trace.header.slots, MOST_SLOTS)
    seconds = since_arrival_s(trace, np.minimum(np.stack([residencies.from_ns, residencies.to_ns]), end_ns))
    for slot in range(shown):
        own = np.flatnonzero(residencies.slot == slot)
        spans = [(float(seconds[0, i]), float(seconds[1, i] - seconds[0, i])) for i in own.tolist()]
        panel.broken_barh([(0, longest_s(trace))], (slot - 0.42, 0.84), facecolors=theme.idle, linewidth=0)
        panel.broken_barh(spans, (slot - 0.42, 0.84), facecolors=_faint(theme.case(0), theme), linewidth=0)
    begin, length, slot_of, request, decode = _advances(trace)
    shades = (theme.case(0), _faint(theme.case(0), theme, 0.35))
    for slot in range(shown):
        here = np.flatnonzero(slot_of == slot)
        # Whoever follows in the slot has the other shade, so that a hand-over can be seen.
        turn = np.cumsum(np.diff(request[here], prepend=request[here][:1]) != 0) % 2
        colours = [
            shades[shade] if decodes else theme.prefill
            for shade, decodes in zip(turn.tolist(), decode[here].tolist(), strict=True)
        ]
        spans = list(zip(begin[here].tolist(), length[here].tolist(), strict=True))
        panel.broken_barh(spans, (slot - 0.42, 0.84), facecolors=colours, linewidth=0)
    panel.set_ylim(shown - 0.4, -0.6)
    panel.set_yticks(range(0, shown, max(1, shown // 8)))
    panel.set_ylabel("slot" if shown == trace.header.slots else f"slot, the first {shown} of {trace.header.slots:,}")
    panel.grid(visible=False)


def _advances(trace: Trace) -> tuple[Floats, Floats, Ints, Ints, npt.NDArray[np.bool_]]:
    """Stretches of steps in which a request advances in one phase: (begin in s, length in s, slot, request, decode)."""
    steps = trace.steps
    order = np.lexsort((steps.member_step, steps.member_request))
    step, request = steps.member_step[order], steps.member_request[order].astype(np.int64)
    slot, decode = steps.member_slot[order].astype(np.int64), steps.member_decode[order]
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(request) != 0) | (np.diff(step) != 1) | (np.diff(slot) != 0) | (decode[1:] != decode[:-1])
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(order))[: len(first)] - 1
    begin = since_arrival_s(trace, steps.start_ns[step[first]])
    by_time = np.argsort(begin, kind="stable")
    length = since_arrival_s(trace, steps.end_ns[step[last]]) - begin
    return begin[by_time], length[by_time], slot[first][by_time], request[first][by_time], decode[first][by_time]


def tokens(groups: Sequence[Group], theme: Theme) -> Figure:
    """Output tokens so far over time: every run thin, the median run of its case thick."""
    figure = Figure(figsize=(WIDTH, 3.1))
    panel = figure.subplots()
    for i, group in enumerate(groups):
        shown = median_run(group.traces)
        for trace in group.traces:
            steps = trace.steps
            by_end = np.argsort(steps.end_ns, kind="stable")  # steps of several replicas overlap
            at, total = _thinned(since_arrival_s(trace, steps.end_ns[by_end]), np.cumsum(steps.sampled[by_end]))
            width, alpha = (2.0, 1.0) if trace is shown else (0.8, 0.45)
            look: dict[str, Any] = {"color": theme.case(i), "ls": theme.dash(i), "lw": width, "alpha": alpha}
            panel.step(np.append(0, at), np.append(0, total), where="post", **look)
    panel.set_xlabel(TIME)
    panel.set_ylabel("output tokens")
    panel.set_xlim(0)
    panel.set_ylim(0)
    _cases_legend(figure, groups, theme, [_against(groups[0], group) for group in groups])
    return figure


def _against(base: Group, group: Group) -> str:
    """How many runs there are, and their throughput over the first case's, by the one rule for pairs."""
    said = _plural(group) + (", thick: the median" if len(group.traces) > 1 else "")
    if group is base:
        return said
    # Whether they may be compared at all was asked before.
    across = {name for name, _, _ in differing_settings([base.traces[0], group.traces[0]])}
    ratio = throughput_ratio(group.traces, base.traces, across)
    of = f"{ratio.n} pair{'s' if ratio.n > 1 else ''}" if ratio.n else "medians"
    return f"{said}; {ratio.median:.2f}× {base.label} ({of})"


def _thinned(x: npt.NDArray[np.float64], y: Ints) -> tuple[Floats, Ints]:
    """At most POINTS of the points, the last among them."""
    if len(x) <= POINTS:
        return x, y
    keep = np.unique(np.linspace(0, len(x) - 1, POINTS).astype(np.int64))
    return x[keep], y[keep]


def extremes(x: npt.NDArray[np.float64], y: Ints) -> tuple[Floats, Ints]:
    """At most POINTS of the points: the smallest and the largest value of each bundle, so that no peak is lost."""
    if len(x) <= POINTS:
        return x, y
    bundles = np.array_split(np.arange(len(x)), POINTS // 2)
    keep = np.unique([bundle[pick(y[bundle])] for bundle in bundles for pick in (np.argmin, np.argmax)])
    return x[keep], y[keep]


def _plural(group: Group) -> str:
    return f"{len(group.traces)} runs" if len(group.traces) > 1 else "1 run"


def shown(group: Group) -> str:
    """Which run of a case is drawn."""
    return f"the median of {len(group.traces)} runs" if len(group.traces) > 1 else "1 run"


def _cases_legend(figure: Figure, groups: Sequence[Group], theme: Theme, what: Sequence[str]) -> None:
    marks = [Line2D([], [], color=theme.case(i), ls=theme.dash(i), lw=2) for i in range(len(groups))]
    legend(figure, marks, [f"{group.label}: {said}" for group, said in zip(groups, what, strict=True)])


def latency(groups: Sequence[Group], theme: Theme) -> Figure:
    """The distributions of TTFT, TPOT, ITL and E2EL: the share of all requests, or gaps, that took at most x."""
    figure = Figure(figsize=(WIDTH, 4.6))
    panels = figure.subplots(2, 2, sharey=True)
    for panel, name in zip(panels.flat, ("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"), strict=True):
        samples = [np.concatenate([getattr(Metrics(trace), name) for trace in group.traces]) for group in groups]
        seconds = max((float(sample.max(initial=0)) for sample in samples), default=0) > LONG_MS
        for i, sample in enumerate(samples):
            if len(sample):
                at, share = _thinned(np.sort(sample), np.arange(1, len(sample) + 1))
                at = at / 1000 if seconds else at
                panel.step(at, share / len(sample), where="post", color=theme.case(i), ls=theme.dash(i))
        if name == "itl_ms" and all((sample > 0).all() for sample in samples):
            # Gaps of a few milliseconds and of seconds in one panel.
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.xaxis.set_minor_locator(NullLocator())
        else:
            panel.set_xlim(0)
            panel.xaxis.set_major_locator(MaxNLocator(6))
        panel.set_title(name.removesuffix("_ms").upper())
        each = list(dict.fromkeys(f"{len(sample):,}" for sample in samples))
        sizes = each[0] if len(each) == 1 else ", ".join(f"{len(sample):,}" for sample in samples)
        panel.set_xlabel(f"{'s' if seconds else 'ms'} (n = {sizes})")
        panel.set_ylim(0, 1.02)
    for panel in panels[:, 0]:
        panel.set_ylabel("share at most x")
    _cases_legend(figure, groups, theme, [_plural(group) for group in groups])
    return figure


def queue(groups: Sequence[Group], theme: Theme) -> Figure:
    """Requests waiting and running, and KV blocks held where the traces say so, of the median run of each case."""
    traces = [median_run(group.traces) for group in groups]
    columns = {"waiting": "requests waiting", "running": "requests running", "kv_used": _blocks_held(traces)}
    drawn = {column: called for column, called in columns.items() if called}
    figure = Figure(figsize=(WIDTH, 0.8 + 1.4 * len(drawn)))
    panels = figure.subplots(len(drawn), 1, sharex=True)
    for panel, (column, called) in zip(panels, drawn.items(), strict=True):
        for i, trace in enumerate(traces):
            values = over_replicas(trace, getattr(trace.steps, column))
            known = values != ABSENT
            at, value = extremes(since_arrival_s(trace, trace.steps.start_ns[known]), values[known])
            if len(at):  # what the last schedule left holds until the step ends
                at, value = np.append(at, longest_s(trace)), np.append(value, value[-1])
            look: dict[str, Any] = {"color": theme.case(i), "ls": theme.dash(i), "lw": 1.2, "clip_on": False}
            panel.step(at, value, where="post", **look)
        panel.set_ylabel(called)
        panel.set_ylim(0)
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[-1].set_xlabel(TIME)
    panels[-1].set_xlim(0)
    _cases_legend(figure, groups, theme, [shown(group) for group in groups])
    return figure


def _blocks_held(traces: Sequence[Trace]) -> str:
    """The name of the axis of KV blocks, with the pool's size where all have the same; empty where no trace says."""
    if not any((trace.steps.kv_used != ABSENT).any() for trace in traces):
        return ""
    pools = {trace.header.kv_blocks for trace in traces}
    (pool,) = pools if len(pools) == 1 else (None,)
    return "KV blocks held" if pool is None else f"KV blocks held\nof {pool:,}"
