"""The names of all figures, for whoever must know them without drawing: a command's options need no matplotlib."""

NAMES = ("slots", "tokens", "latency", "queue", "bounds", "batch", "steps")
