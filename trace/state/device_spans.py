"""When the device worked on each step, on the host's clock.

An engine that launches steps ahead fetches a step's tokens late: the host's times then say when it looked, not
what the step took. A device that measures says how long each step took and how long it had waited for it, which chains
the steps to each other but not to the host's clock. What ties them is that no step ends later than its tokens were on
the host, and that the host was there at once for at least one step of a chain: the chain is as late as that allows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tracereel.trace.state.values import ABSENT, Ints

CHAIN = 4096
"""Steps of a chain at most: the two clocks drift apart, some 0.02 ms a second."""
TOLERANCE_NS = 1_000_000
"""A step that the device would have begun so long before its schedule contradicts the host."""


def step_spans(columns: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """(start, end) of each step: by the device where it measured, and the host's own columns where it did not.

    `columns` are those of `Steps`. The host's are taken too where the device's times contradict them.
    """
    host: tuple[Ints, Ints] = (columns["host_start_ns"], columns["host_end_ns"])
    if not (columns["device_ns"] != ABSENT).any():
        return host
    start, end = host[0].copy(), host[1].copy()
    for replica in np.unique(columns["replica"]):
        own = np.flatnonzero(columns["replica"] == replica)
        start[own], end[own] = _chained({name: columns[name][own] for name in _USED})
    latency, (host_start, host_end) = columns["latency_ns"], host
    scheduled = np.where(latency == ABSENT, host_start, host_end - latency)
    if (start < scheduled - TOLERANCE_NS).any():
        return host
    return np.minimum(np.maximum(start, scheduled), end), end


_USED = ("index", "host_start_ns", "host_end_ns", "device_ns", "device_gap_ns")


def _chained(columns: Mapping[str, Ints]) -> tuple[Ints, Ints]:
    """(start, end) of the steps of one replica."""
    host_start, host_end = columns["host_start_ns"], columns["host_end_ns"]
    known = columns["device_ns"] != ABSENT
    took = np.where(known, columns["device_ns"], host_end - host_start)
    # A chain ends where the next step does not say how long the device waited for it, or is not the next one.
    follows = known & np.roll(known, 1) & (columns["device_gap_ns"] != ABSENT)
    follows &= np.diff(columns["index"], prepend=columns["index"][0]) == 1
    follows &= np.arange(len(known)) % CHAIN != 0
    firsts = np.flatnonzero(~follows)
    chain = np.cumsum(~follows) - 1
    total = np.cumsum(took + np.where(follows, columns["device_gap_ns"], 0))
    end = total - (total - took)[firsts][chain]
    begin = np.minimum.reduceat(host_end - end, firsts)
    # The device does one step after the other: a chain has ended when the next one begins.
    length = end[np.append(firsts[1:], len(end)) - 1]
    before = np.cumsum(length) - length
    begin = before + np.minimum.accumulate((begin - before)[::-1])[::-1]
    end = end + begin[chain]
    return end - took, end
