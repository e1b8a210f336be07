"""Modules that take seconds to import, imported where a test first asks for something of them.

Each of pytest's processes collects every file: what stands at the top of a file is imported even if no test of it runs.
"""

from importlib import import_module
from typing import Any


class Lazily:
    """Stands for a module, by its name, until it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # pytest asks everything at a file's top whether it wraps a fixture, and must not be answered by an import.
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return getattr(import_module(self._name), attribute)
