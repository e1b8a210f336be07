"""A trace in other formats: Chrome JSON for Perfetto, Parquet and CSV tables.

Knows traces and those formats. Does not know where a file should go.
"""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Told (steps written, steps in all)."""
