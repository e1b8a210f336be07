"""Which runs may be compared: those that measured the same work on the same machine under the same settings.

Knows headers and arrivals. Everything that sets runs side by side asks here: `compare`, `diff`, plots, and films.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from tracereel.trace.format.events import Header
from tracereel.trace.state.columns import Trace

_MUST_BE_KNOWN: dict[str, Callable[[Header], object]] = {
    "workload.digest": lambda header: header.workload.digest,
    "model.digest": lambda header: header.model.digest,
    "model.weights": lambda header: header.model.weights,
    "model.dtype": lambda header: header.model.dtype,
    "device.name": lambda header: header.device.name,
}
_MAY_BE_UNKNOWN: dict[str, Callable[[Trace], object]] = {
    "device.threads": lambda trace: trace.header.device.threads,
    "workload.arrivals": lambda trace: trace.header.workload.arrivals,
    "workload.seed": lambda trace: trace.header.workload.seed,
    "number of requests": lambda trace: None if trace.cut else len(trace.arrivals),
}
_OF_POLICY = ("max_wait_ms", "workload_notes")
"""Entries of `header.config` that say how a policy works, or what was done to a workload, which its digest covers."""
_CAPTURED = "captured"
"""How names of entries begin that say what an engine prepared for its policy's steps."""


class NotComparableError(Exception):
    """Two runs cannot be compared; the message names the field that differs and both values."""


def settings_of(header: Header) -> Mapping[str, object]:
    """The settings of a run that are not its policy's, by their names in the header; None where it does not say."""
    config = {
        f"config.{name}": value
        for name, value in header.config.items()
        if name not in _OF_POLICY and not name.startswith(_CAPTURED)
    }
    return {
        "slots": header.slots,
        "token_budget": header.token_budget,
        "kv_blocks": header.kv_blocks,
        "kv_block_tokens": header.kv_block_tokens,
        **config,
    }


def differing_settings(traces: Sequence[Trace]) -> Iterator[tuple[str, Trace, Trace]]:
    """Every setting in which a trace differs from the first: its name and the two. What one does not say is no matter.

    Of another engine only the slots are compared: nobody knows which of its settings are which.
    """
    first = traces[0]
    for other in traces[1:]:
        left, right = settings_of(first.header), settings_of(other.header)
        same_engine = first.header.engine.name == other.header.engine.name
        for name in left if same_engine else ("slots",):
            if left[name] is not None and right.get(name) is not None and left[name] != right[name]:
                yield name, first, other


def require_comparable(traces: Sequence[Trace], across: Collection[str] = ()) -> None:
    """Raise NotComparableError where the traces do not measure the same work on the same machine, each once.

    `across` names the settings that may differ because they are what is compared, as `settings_of` names them.
    """
    require_same_work(traces)
    for name, first, other in differing_settings(traces):
        if name not in across:
            values = settings_of(first.header)[name], settings_of(other.header)[name]
            raise NotComparableError(
                f"{first.path} and {other.path} differ in {name}: {values[0]!r} and {values[1]!r};"
                f" where that is what you compare, say --across {name}"
            )


def require_same_work(traces: Sequence[Trace]) -> None:
    """As `require_comparable`, whatever the settings."""
    first = traces[0]
    seen: dict[str, Trace] = {}
    for trace in traces:
        if trace.digest in seen:
            raise NotComparableError(f"{seen[trace.digest].path} and {trace.path} are the same run; name each run once")
        seen[trace.digest] = trace
    for other in traces[1:]:
        for name, field in _MUST_BE_KNOWN.items():
            left, right = field(first.header), field(other.header)
            if left != right:
                raise _differ(first, other, name, left, right)
            if left is None:
                raise NotComparableError(f"neither {first.path} nor {other.path} says its {name}: it may differ")
        for name, of_trace in _MAY_BE_UNKNOWN.items():
            left, right = of_trace(first), of_trace(other)
            if left is not None and right is not None and left != right:
                raise _differ(first, other, name, left, right)


def _differ(first: Trace, other: Trace, name: str, left: object, right: object) -> NotComparableError:
    return NotComparableError(
        f"{first.path} and {other.path} differ in {name}: {left!r} and {right!r}; name runs of the same"
    )
