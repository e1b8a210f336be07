"""When each request waited for a slot: before its first, and after each preemption."""

from itertools import pairwise

import numpy as np
from tracereel.trace.state.columns import NEVER_NS, Ints, Trace, group_by


class Waits:
    """Every interval in which a request waited; rank 0 after a preemption, else 1.

    Sorted by their beginning and bundled: a bundle whose latest end has passed is not looked at.
    """

    _BUNDLE = 256

    def __init__(self, trace: Trace):
        rows: list[tuple[int, int, int, int]] = []
        residencies = trace.residencies
        order, bounds = group_by(residencies.request.astype(np.int32), len(trace.arrivals))
        from_ns, to_ns = residencies.from_ns[order].tolist(), residencies.to_ns[order].tolist()
        preempted, firsts = residencies.preempted[order].tolist(), bounds.tolist()
        for request, arrival in enumerate(trace.arrivals):
            own = range(firsts[request], firsts[request + 1])
            at, _, _ = trace.endings.get(request, (NEVER_NS, "", 0))
            rows.append((arrival.arrival_ns, from_ns[own[0]] if own else at, request, 1))
            rows.extend((to_ns[left], from_ns[back], request, 0) for left, back in pairwise(own))
            if own and preempted[own[-1]]:
                rows.append((to_ns[own[-1]], at, request, 0))
        columns = np.array(sorted(rows), dtype=np.int64).reshape(-1, 4).T
        self._begin, self._end, self._request, self._rank = (np.ascontiguousarray(column) for column in columns)
        starts = np.arange(0, len(self._end), self._BUNDLE)
        self._latest_end = np.maximum.reduceat(self._end, starts) if len(starts) else self._end

    def at(self, t_ns: int) -> tuple[Ints, Ints]:
        """The requests that wait at t, and the rank of each."""
        begun = int(np.searchsorted(self._begin, t_ns, side="right"))
        bundles = np.flatnonzero(self._latest_end[: -(-begun // self._BUNDLE)] > t_ns)
        rows = (bundles[:, None] * self._BUNDLE + np.arange(self._BUNDLE)).ravel()
        rows = rows[rows < begun]
        rows = rows[self._end[rows] > t_ns]
        return self._request[rows], self._rank[rows]
