"""What a request does to the others: the gaps between their tokens while it waits and is read.

The token times are those of the timeline, of all requests alike. Knows one run at a time.
"""

from itertools import pairwise

import numpy as np
from tracereel.trace.state.columns import Ints
from tracereel.trace.state.timeline import Timeline


def gaps_beside(timeline: Timeline, request: int) -> tuple[Ints, Ints]:
    """The gaps between consecutive output tokens of the others: where each begins and ends, ns.

    Those that have a part between the request's arrival and its first token; up to the run's end where it has none.
    """
    trace = timeline.trace
    from_ns = trace.arrivals[request].arrival_ns
    tokens = timeline.token_times_of(request)
    until_ns = tokens[0] if tokens else timeline.end_ns
    gaps = [
        gap
        for other in range(len(trace.arrivals))
        if other != request
        for gap in pairwise(timeline.token_times_of(other))
        if gap[1] > from_ns and gap[0] < until_ns
    ]
    begins, ends = np.array(gaps, dtype=np.int64).reshape(-1, 2).T
    return begins, ends
