"""Cases compared: which runs are repeats of each other, and the ratios of what they measured with their uncertainty.

Knows headers and metrics. Whether runs may be compared is `comparable`'s to say, which of them are pairs is `pairs`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from tracereel.trace.analysis.pairs import pairs_of
from tracereel.trace.analysis.registry import compared, measured
from tracereel.trace.format.events import Header
from tracereel.trace.state.columns import Trace

RESAMPLES = 10_000
_LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Group:
    """Repeats of one case: runs of the same engine with the same settings."""

    label: str
    traces: tuple[Trace, ...]
    values: Mapping[str, tuple[float | None, ...]]
    """For each key of `registry.compared` what each run measured, None where it does not say."""


@dataclass(frozen=True)
class Estimate:
    """A ratio of medians or a median of ratios, and the interval that holds 95 % of its bootstrap resamples."""

    ratio: float
    low: float | None
    high: float | None
    """None where one run, or pair of runs, leaves nothing to resample."""
    n: int
    paired: bool
    """Is it the median of n pairs of runs that were made one right after the other?"""

    @property
    def moved(self) -> bool:
        """Does the interval leave out 1, which would be no change?"""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def group_runs(traces: Sequence[Trace], slo: Mapping[str, float] | None = None) -> list[Group]:
    """Sort runs into groups of repeats, in the order in which each first appears.

    Repeats agree in all that their headers say but the clock and the number of the repeat.
    """
    groups: dict[bytes, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(msgspec.json.encode(_settings(trace.header), order="sorted"), []).append(trace)
    members = list(groups.values())
    names = _labels([some[0].header for some in members])
    return [Group(name, tuple(some), _values(some, slo)) for name, some in zip(names, members, strict=True)]


def _settings(header: Header) -> Any:
    run = header.run and msgspec.structs.replace(header.run, repeat=0)
    clock = msgspec.structs.replace(header.clock, monotonic_ns=0, wall_ns=0)
    return msgspec.to_builtins(msgspec.structs.replace(header, run=run, clock=clock))


def _labels(headers: Sequence[Header]) -> list[str]:
    """A name for each group: its case or policy, and where two are the same, the settings in which they differ."""
    plain = [header.run.case if header.run else header.policy for header in headers]
    flat = [dict(_flat(_settings(header))) for header in headers]
    found = []
    for i, name in enumerate(plain):
        twins = [flat[k] for k in range(len(headers)) if plain[k] == name]
        differing = sorted(
            key for key in {key for twin in twins for key in twin} if len({t.get(key) for t in twins}) > 1
        )
        said = [f"{key.rsplit('.', 1)[-1]} {str(flat[i].get(key, '–'))[:12]}" for key in differing]
        found.append(f"{name} ({', '.join(said[:3])})" if said else name)
    return found


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{path}.{key}" if path else key)]
    return [(path, str(value))]


def _values(traces: Sequence[Trace], slo: Mapping[str, float] | None) -> dict[str, tuple[float | None, ...]]:
    facts = [measured(trace, slo) for trace in traces]
    return {key: tuple(_part(each, key) for each in facts) for key in compared()}


def _part(facts: Mapping[str, Any], key: str) -> float | None:
    name, _, part = key.partition(".")
    value: float | None = facts[name][part] if part else facts[name]
    return value


def estimate(base: Group, other: Group, name: str) -> Estimate | None:
    """`other` over `base` in one of `registry.compared`; None where a run does not say, or `base` measured 0.

    Where the runs are pairs, the median of the pairs' ratios; else the ratio of the medians. The interval is a
    percentile bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) over pairs or over the
    runs of each group, with a fixed seed.
    """
    bottom, top = base.values[name], other.values[name]
    below = np.array([value for value in bottom if value is not None], dtype=float)
    above = np.array([value for value in top if value is not None], dtype=float)
    if len(below) < len(bottom) or len(above) < len(top) or not below.all():
        return None
    pairs = pairs_of(base.traces, other.traces)
    rng = np.random.default_rng(0)
    if pairs:
        ratios = np.array([above[k] / below[i] for i, k in pairs])
        resampled = np.median(_resample(rng, ratios), axis=1)
        ratio, n = float(np.median(ratios)), len(ratios)
    else:
        resampled = np.median(_resample(rng, above), axis=1) / np.median(_resample(rng, below), axis=1)
        ratio, n = float(np.median(above) / np.median(below)), min(len(above), len(below))
    if n < 2:
        return Estimate(ratio, None, None, n, bool(pairs))
    low, high = np.percentile(resampled, _LEVEL).tolist()
    return Estimate(ratio, low, high, n, bool(pairs))


def _resample(rng: np.random.Generator, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[rng.integers(0, len(values), (RESAMPLES, len(values)))]
