"""Which colour each request of a workload has: the same in every run of it, never that of its neighbour in a slot.

A greedy colouring of the graph whose edges join requests that held one slot one after the other, in any of the runs.
Knows traces and the colours' roles; draws nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from tracereel.film.canvas import Sides
from tracereel.film.theme import REQUESTS, Colour
from tracereel.trace.state.columns import Trace

_BESIDE = 1
"""Rows above and below that should differ as well, where colours allow it."""


class RequestColours:
    """The colour of each request by its number; requests of several runs are matched by their numbers.

    Two requests that follow each other in a slot differ in all runs, as long as no request has more of such
    neighbours than there are colours, less one. Requests in adjacent slots at the same time differ where possible.
    """

    def __init__(self, traces: Sequence[Trace]):
        count = max((len(trace.arrivals) for trace in traces), default=0)
        follows: list[set[int]] = [set() for _ in range(count)]
        beside: list[set[int]] = [set() for _ in range(count)]
        for trace in traces:
            for one, other in _successions(trace):
                follows[one].add(other)
                follows[other].add(one)
            for one, other in _adjacent(trace):
                beside[one].add(other)
                beside[other].add(one)
        self.indices = _coloured(follows, beside)
        """For each request the index of its colour in `theme.REQUESTS`."""

    def __getitem__(self, request: int) -> Colour:
        return REQUESTS[self.indices[request]]

    def alike(self, requests: Iterable[int], places: Iterable[Sides]) -> Iterator[tuple[Colour, list[Sides]]]:
        """The places of requests by the requests' colours; it ends with the shorter of both."""
        found: list[list[Sides]] = [[] for _ in REQUESTS]
        for request, sides in zip(requests, places, strict=False):
            found[self.indices[request]].append(sides)
        return zip(REQUESTS, found, strict=True)


def _successions(trace: Trace) -> Iterable[tuple[int, int]]:
    """Requests that held a slot one directly after the other."""
    residencies = trace.residencies
    order = np.lexsort((residencies.from_ns, residencies.slot))
    for before, after in pairwise(order.tolist()):
        one, other = int(residencies.request[before]), int(residencies.request[after])
        if residencies.slot[before] == residencies.slot[after] and one != other:
            yield one, other


def _adjacent(trace: Trace) -> Iterable[tuple[int, int]]:
    """Requests in slots next to each other whose residencies overlap in time."""
    residencies = trace.residencies
    order = np.argsort(residencies.from_ns, kind="stable").tolist()
    newest: dict[int, int] = {}
    for i in order:
        slot = int(residencies.slot[i])
        for row in range(slot - _BESIDE, slot + _BESIDE + 1):
            there = newest.get(row)
            if row != slot and there is not None and residencies.to_ns[there] > residencies.from_ns[i]:
                yield int(residencies.request[there]), int(residencies.request[i])
        newest[slot] = i


def _coloured(follows: Sequence[set[int]], beside: Sequence[set[int]]) -> tuple[int, ...]:
    """A colour for each, in the order of numbers: the first choice is its number's, as far as neighbours allow it."""
    colours = len(REQUESTS)
    chosen: list[int] = []
    for request, (behind, near) in enumerate(zip(follows, beside, strict=True)):
        taken = [chosen[other] for other in behind if other < request]
        seen = [chosen[other] for other in near if other < request]
        chosen.append(
            min(
                range(colours),
                key=lambda colour: (taken.count(colour), seen.count(colour), (colour - request) % colours),
            )
        )
    return tuple(chosen)
