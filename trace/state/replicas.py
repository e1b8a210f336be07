"""A merged trace's steps say what their own replica holds; here it is added up over all."""

import numpy as np
from tracereel.trace.state.columns import ABSENT, Ints, Trace


def over_replicas(trace: Trace, values: Ints) -> Ints:
    """For each step the sum of all replicas' values, each of its newest step; ABSENT where one does not say.

    `values` has an entry for each step, of the replica that made it. Of a trace that is not merged they are the sums.
    """
    if not trace.header.replicas:
        return values
    places = np.arange(len(values))
    total = np.zeros(len(values), dtype=np.int64)
    unknown = np.zeros(len(values), bool)
    for replica in np.unique(trace.steps.replica):
        newest = np.maximum.accumulate(np.where(trace.steps.replica == replica, places, -1))
        own = np.where(newest >= 0, values[newest], 0)
        total += own
        unknown |= own == ABSENT
    return np.where(unknown, ABSENT, total)
