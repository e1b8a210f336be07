"""Measured values: a number or a text that knows how it was obtained, so that anybody can obtain it again.

A `Measured` names its query, the query's arguments, the digests of the traces and the lines of the records behind it.
A query is a function registered by `query`; `evaluate` recomputes any of them, which is how a film is verified. The
queries there are stand in `queries/`, by subject; import this module's names from there, so that they are registered.
Does not know where a value is shown, nor how it is formatted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec
from tracereel.trace.analysis.latency import Latencies
from tracereel.trace.analysis.life import Stretch, life_of
from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.analysis.pairs import median_run
from tracereel.trace.analysis.registry import METRICS, Metric
from tracereel.trace.state.columns import Ints, Trace
from tracereel.trace.state.timeline import Timeline

Value = int | float | str
Argument = int | float | str
Lines = tuple[int, int]
Answer = tuple[Value, Lines]
"""What a query gives: the value, and the first and last line of the records behind it."""


Function = TypeVar("Function", bound=Callable[..., Answer])


class UnknownQueryError(KeyError):
    """No query has that name."""


@dataclass(frozen=True)
class Measured:
    """A value, the query that gives it, and the traces and lines (first, last; of the first trace) it comes from."""

    value: Value
    query: str
    args: tuple[tuple[str, Argument], ...]
    traces: tuple[str, ...]
    lines: Lines


class Run:
    """A trace with what is asked of it often: its timeline, its metrics, and measured values by query."""

    def __init__(self, trace: Trace):
        self.trace = trace
        self.answered = lru_cache(maxsize=50_000)(self._answered)
        """What a query gives of this run and those after it: a film asks the same in many frames."""
        self.latencies = lru_cache(maxsize=None)(self._latencies)
        """The `ttft` or the `itl` values of the run. Raises ValueError for another metric."""
        self.life = lru_cache(maxsize=None)(self._life)
        """The stages of a request's life: a film asks for each of them in every frame."""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a trace file. Raises TraceError."""
        return cls(Trace.read(path))

    @cached_property
    def timeline(self) -> Timeline:
        """The state at any instant."""
        return Timeline(self.trace)

    @cached_property
    def metrics(self) -> Metrics:
        """What the run adds up to."""
        return Metrics(self.trace)

    @cached_property
    def decode_rows(self) -> Ints:
        """For each step its rows, padding among them; 0 where it prefills."""
        steps = self.trace.steps
        rows = steps.batch + steps.padding
        rows[steps.member_step[~steps.member_decode]] = 0
        return rows

    def _latencies(self, metric: str) -> Latencies:
        return Latencies.of(self.trace, metric)

    def _life(self, request: int) -> tuple[Stretch, ...]:
        return life_of(self.timeline, request)

    def measure(self, query: str, **args: Argument) -> Measured:
        """Ask a query about this run: `measure("waiting", t_ns=…)`. Raises UnknownQueryError."""
        return measure(query, [self], **args)

    def _answered(self, query: str, others: "tuple[Run, ...]", args: tuple[tuple[str, Argument], ...]) -> Measured:
        return _measure(query, (self, *others), args)


def measure(query: str, runs: Sequence[Run], **args: Argument) -> Measured:
    """Ask a query about runs. Raises UnknownQueryError, and what the query raises."""
    asked = tuple(sorted(args.items()))
    return runs[0].answered(query, tuple(runs[1:]), asked) if runs else _measure(query, (), asked)


def _measure(query: str, runs: Sequence[Run], args: tuple[tuple[str, Argument], ...]) -> Measured:
    value, lines = evaluate(query, runs, dict(args))
    return Measured(value, query, args, tuple(run.trace.digest for run in runs), lines)


def evaluate(query: str, runs: Sequence[Run], args: Mapping[str, Argument]) -> Answer:
    """The value a query gives, and the lines behind it; a metric is a query too, by its own name.

    Raises UnknownQueryError, and what the query raises.
    """
    if query in QUERIES:
        return QUERIES[query](*runs, **args)
    if query in METRICS:
        return _metric(METRICS[query], runs, args)
    raise UnknownQueryError(query)


def _metric(metric: Metric, runs: Sequence[Run], args: Mapping[str, Argument]) -> Answer:
    """A metric of one run; of a distribution the `part` asked for, such as `p50`.

    Raises ValueError where the trace does not say it, or where something else was asked.
    """
    wanted = {"part"} if metric.distribution else set()
    if len(runs) != 1 or set(args) != wanted:
        raise ValueError(f"{metric.name} is asked of one run" + (", by its part" if wanted else " without arguments"))
    run, result = runs[0], metric.of(runs[0].metrics)
    if isinstance(result, Distribution):
        result = msgspec.to_builtins(result).get(args["part"])
    if not isinstance(result, int | float):
        raise ValueError(f"the trace does not say its {metric.label}")
    return result, lines_of_run(run)


QUERIES: dict[str, Callable[..., Answer]] = {}
"""Every query by its name, which a ledger keeps."""


def query(function: Function) -> Function:
    """Register a function as the query of its name.

    The function takes the runs it is asked about by position and everything else by keyword: numbers and texts alone,
    because a ledger keeps them. It gives a number or a text and the lines behind it, and must depend on nothing else.
    Raises ValueError where another function bears that name already.
    """
    name = function.__name__
    known = QUERIES.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
        raise ValueError(f"the query {name!r} of {known.__module__} is there already")
    QUERIES[name] = function
    return function


def lines_of_steps(run: Run, first: int, end: int) -> Lines:
    """The lines of the steps from `first` up to but without `end`; the header's where there are none."""
    line = run.trace.steps.line
    return (int(line[first]), int(line[end - 1])) if end > first else (1, 1)


def lines_so_far(run: Run, t_ns: int) -> Lines:
    """The lines of the steps that have started at engine time t."""
    return lines_of_steps(run, 0, run.timeline.steps_started(t_ns))


def lines_of_run(run: Run) -> Lines:
    """The lines of all steps."""
    return lines_of_steps(run, 0, len(run.trace.steps))


def median_of(runs: Sequence[Run]) -> Run:
    """The run with the median throughput of its case: the one that is shown for all."""
    shown = median_run([run.trace for run in runs])
    return next(run for run in runs if run.trace is shown)
