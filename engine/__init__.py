"""Requests in, tokens and steps out: a small continuous-batching engine that says what it does.

Records traces through `tracereel.trace`; knows nothing of scenes. The scheduler and its policies import no torch, so
that they can be read, tested and timed without it.
"""
