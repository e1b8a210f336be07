"""Which runs may be compared: those that measured the same work on the same device.

Knows headers alone. Everything that sets runs side by side asks here: `compare`, `diff`, plots, and films.
"""

from collections.abc import Callable, Sequence

from tracereel.trace.format.events import Header
from tracereel.trace.state.columns import Trace

_COMPARABLE: dict[str, Callable[[Header], object]] = {
    "workload.digest": lambda header: header.workload.digest,
    "model.digest": lambda header: header.model.digest,
    "model.weights": lambda header: header.model.weights,
    "model.dtype": lambda header: header.model.dtype,
    "device.name": lambda header: header.device.name,
}


class NotComparableError(Exception):
    """Two runs cannot be compared; the message names the field that differs and both values."""


def require_comparable(traces: Sequence[Trace]) -> None:
    """Raise NotComparableError where the traces do not measure the same work on the same device."""
    first = traces[0]
    for other in traces[1:]:
        for name, field in _COMPARABLE.items():
            left, right = field(first.header), field(other.header)
            if left != right:
                raise NotComparableError(f"{first.path} and {other.path} differ in {name}: {left!r} and {right!r}")
            if left is None:
                raise NotComparableError(f"neither {first.path} nor {other.path} says its {name}: it may differ")
