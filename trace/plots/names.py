"""The names of all figures, for code that does not draw: a command's options need no matplotlib."""

NAMES = ("slots", "tokens", "latency", "queue", "bounds", "batch", "steps")
