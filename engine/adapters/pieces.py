"""What an adapter relies on in another engine, looked up by name: no engine promises it, and each moves it about."""

import logging
from collections.abc import Iterable
from typing import Any

from tracereel.engine.adapters import AdapterError


def has_piece(thing: Any, path: str) -> bool:
    """Has it an attribute at this dotted path?"""
    for name in path.split("."):
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


def lacking(engine: str, lacks: Iterable[str]) -> AdapterError:
    """The fault of an engine (its name, and its version where that is known) that lacks these; one line."""
    return AdapterError(
        f"tracereel: this {engine} has no {', '.join(lacks)}, which recording relies on; record with a version that"
        " docs/engines.md names"
    )


def warn_of_untried(logger: logging.Logger, engine: str, version: str, tried: Iterable[str]) -> None:
    """One line where this version has not been tried; one of two numbers stands for all that begin with them."""
    tried = tuple(tried)
    if not {version, ".".join(version.split(".")[:2])} & set(tried):
        logger.warning(
            "tracereel: %s %s has not been tried (tried: %s); run `tracereel check` on the trace",
            engine,
            version,
            ", ".join(tried),
        )
