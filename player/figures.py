"""The figures of a page: which queries are asked of its runs, and how each answer is carried.

A figure travels with its query, arguments, traces and lines, so that `tracereel verify` asks again. Knows queries; the
page's words say how a figure is called.
"""

import re
from collections.abc import Sequence

import msgspec
import numpy as np
from tracereel.film.phrases import shown_as
from tracereel.trace.analysis.comparable import NotComparableError, require_comparable
from tracereel.trace.analysis.moments import worst_pause
from tracereel.trace.analysis.queries import QUERIES, Argument, Run, Value, evaluate
from tracereel.trace.analysis.registry import METRICS


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value: `label` is the key of its words, `value` None where the traces do not say."""

    label: str
    query: str
    args: dict[str, Argument]
    traces: list[str]
    lines: tuple[int, int]
    value: Value | None
    shown: str | None
    style: str
    definition: str


Asked = tuple[str, str, dict[str, Argument], str]
"""(key of the words, query, arguments, format)."""

PARTS = ("p50", "p90", "p99")
"""What is shown of a distribution."""
OF_TWO_CASES: tuple[Asked, ...] = (
    ("figure_ratio_median", "throughput_ratio_median", {}, ".2f"),
    ("figure_ratio_low", "throughput_ratio_low", {}, ".2f"),
    ("figure_ratio_high", "throughput_ratio_high", {}, ".2f"),
    ("figure_ratio_pairs", "throughput_ratio_pairs", {}, "d"),
)


def figures_of(run: Run) -> list[Figure]:
    """What one run measured: every metric there is."""
    found = []
    for metric in METRICS.values():
        if metric.name in QUERIES:  # asked at an instant, as output_tokens is: the page counts it itself
            continue
        parts = PARTS if metric.distribution else (None,)
        style = ",.1f" if metric.unit == "ms" else ",.2f"
        for part in parts:
            args: dict[str, Argument] = {} if part is None else {"part": part}
            found.append(_figure((f"metric_{metric.name}", metric.name, args, style), [run]))
    return found


def comparison(numerator: Sequence[Run], denominator: Sequence[Run]) -> tuple[list[Figure], str | None]:
    """Output throughput of one case over another's, from all repeats; or why there is none: the field that differs."""
    runs = [*numerator, *denominator]
    try:
        require_comparable([run.trace for run in runs])
    except NotComparableError as error:
        return [], _field_that_differs(str(error))
    figures = [
        _figure((label, name, {**args, "numerator": len(numerator)}, style), runs)
        for label, name, args, style in OF_TWO_CASES
    ]
    return (figures, None) if figures[0].value is not None else ([], "")


_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def _field_that_differs(message: str) -> str:
    """What a refusal says of the field, digests by their first digits; empty where it names none.

    The message names files as well, which a page that is given away has no business with.
    """
    field = message.split(" differ in ")[-1].split(";")[0] if " differ in " in message else ""
    return _DIGEST.sub(r"\1", field)


def _figure(asked: Asked, runs: Sequence[Run]) -> Figure:
    label, name, args, style = asked
    value: Value | None
    try:
        value, lines = evaluate(name, runs, args)
    except (ValueError, LookupError, ZeroDivisionError):  # what a query raises where a trace does not say
        value, lines = None, (0, 0)
    if isinstance(value, int):
        style = ",d"
    elif isinstance(value, float) and not np.isfinite(value):
        value = None
    return Figure(
        label=label,
        query=name,
        args=args,
        traces=[run.trace.digest for run in runs],
        lines=lines,
        value=value,
        shown=None if value is None else shown_as(value, style),
        style=style,
        definition=" ".join((METRICS[name].definition if name in METRICS else QUERIES[name].__doc__ or "").split()),
    )


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader may look first; None where the run has no such moment. Times are the trace's own."""

    slowest_step: int | None
    longest_wait_request: int | None
    """The request that waited longest for its first slot."""
    longest_wait_ns: int | None
    worst_pause_request: int | None
    """The request with the longest time between two of its output tokens."""
    worst_pause_from_ns: int | None
    worst_pause_to_ns: int | None


def moments_of(run: Run) -> Moments:
    """The moments of one run."""
    trace, pause = run.trace, worst_pause(run.trace)
    request, first = np.unique(trace.residencies.request, return_index=True)
    arrivals = np.array([trace.arrivals[i].arrival_ns for i in request.tolist()], dtype=np.int64)
    waits = trace.residencies.from_ns[first] - arrivals
    longest = int(np.argmax(waits)) if len(waits) else None
    steps = trace.steps.end_ns - trace.steps.start_ns
    return Moments(
        slowest_step=int(np.argmax(steps)) if len(steps) else None,
        longest_wait_request=None if longest is None else int(request[longest]),
        longest_wait_ns=None if longest is None else int(waits[longest]),
        worst_pause_request=None if pause is None else pause.request,
        worst_pause_from_ns=None if pause is None else pause.from_ns,
        worst_pause_to_ns=None if pause is None else pause.to_ns,
    )
