"""Other engines, the same trace: what records vLLM and transformers without a fork of either.

Each adapter is a module that imports its engine; this package imports neither, nor torch.
"""

from typing import Any


class AdapterError(Exception):
    """This run of another engine cannot be recorded; the message is one line that says why, or what to do."""


def has_piece(thing: Any, path: str) -> bool:
    """Has it an attribute at this dotted path? What another engine does not promise is looked up by its name."""
    for name in path.split("."):
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True
