"""How the threads of torch's OpenMP (libgomp) wait: they give the cores to other processes soon.

By default they spin for milliseconds where no other thread of their own process needs the core; two recordings side by
side then take turns at spinning. benchmarks/results/two_records.md has what each value costs.
"""

import os

SPIN_COUNT = "1000"
_OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""What a user may have set, which stays."""


def yield_the_cores() -> None:
    """Set it for this process. libgomp reads it when it is loaded: call this before torch is imported."""
    if not any(name in os.environ for name in _OWN):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
