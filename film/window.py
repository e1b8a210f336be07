"""A stretch of one run that is asked for in place of a whole scene: which run, from when to when, which slots.

A value, from texts; checked against the run once there is one. Knows digests, seconds and slots; draws nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import Timeline

NAMES = ("run", "from", "to", "slots")
"""What can be asked for, as the options are called."""
_SHAPES = {
    "run": ("[0-9a-f]{4,64}", "the first digits (at least four) of a trace's digest"),
    "from": (r"\d{1,9}(\.\d{1,9})?", "engine time in seconds"),
    "to": (r"\d{1,9}(\.\d{1,9})?", "engine time in seconds"),
    "slots": (r"(\d{1,6})-(\d{1,6})", "A-B, the first slot and the last, counted from zero"),
}


class WindowError(Exception):
    """A stretch cannot be shown; the message is one line."""


@dataclass(frozen=True)
class Window:
    """What is asked for; None: all there is. Times are the trace's own, as on screen and in the player's links."""

    run: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    slots: tuple[int, int] | None = None
    facts: tuple[tuple[str, str], ...] = ()
    """As it was asked for."""

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> "Window | None":
        """From texts by the names of the options; None where none is given. Raises WindowError that names one."""
        given = {name: asked[name] for name in NAMES if asked.get(name)}
        if not given:
            return None
        for name, text in given.items():
            shape, meant = _SHAPES[name]
            if not re.fullmatch(shape, text, re.ASCII):
                raise WindowError(f"--{name}: {text!r} is not {meant}")
        first, last = (int(slot) for slot in given.get("slots", "0-0").split("-"))
        if first > last:
            raise WindowError(f"--slots: {given['slots']!r} ends before it begins")
        from_ns, to_ns = (_ns(given[name]) if name in given else None for name in ("from", "to"))
        if from_ns is not None and to_ns is not None and from_ns >= to_ns:
            raise WindowError(f"--from, --to: {given['from']} s is not before {given['to']} s")
        slots = (first, last) if "slots" in given else None
        return cls(given.get("run"), from_ns, to_ns, slots, tuple(given.items()))

    def of(self, trace: Trace, timeline: Timeline) -> "Stretch":
        """The stretch of a run. Raises WindowError where the run has nothing there."""
        begin, end = timeline.begin_ns, timeline.end_ns
        from_ns = begin if self.from_ns is None else self.from_ns
        to_ns = end if self.to_ns is None else self.to_ns
        if max(from_ns, begin) >= min(to_ns, end):
            raise WindowError(
                f"--from, --to: trace {trace.name} goes from {begin / 1e9:.3f} s to {end / 1e9:.3f} s, and has nothing"
                f" from {from_ns / 1e9:g} s to {to_ns / 1e9:g} s"
            )
        slots = trace.header.slots
        first, last = self.slots or (0, slots - 1)
        if last >= slots:
            raise WindowError(f"--slots: trace {trace.name} has no slot {last}, its slots are 0-{slots - 1}")
        return Stretch(max(from_ns, begin), min(to_ns, end), range(first, last + 1))


@dataclass(frozen=True)
class Stretch:
    """From when to when, in the trace's own ns, and which slots."""

    from_ns: int
    to_ns: int
    slots: range


def _ns(seconds: str) -> int:
    """Exactly the digits that were written."""
    whole, _, rest = seconds.partition(".")
    return int(whole) * 10**9 + int(rest.ljust(9, "0"))
