"""Memory for frames: what has been encoded is drawn into again.

New memory for each frame costs more than a millisecond at 1080p: the system clears its pages one by one. Knows arrays;
neither draws nor encodes.
"""

from collections import deque
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

Pixels = np.ndarray[Any, Any]


class FrameMemory:
    """Arrays of one shape; used by the thread that draws and by those that encode.

    A frame that nobody gives back (another encoder took it, or none) is not kept either.
    """

    def __init__(self) -> None:
        self._lent: WeakValueDictionary[int, Pixels] = WeakValueDictionary()
        self._free: deque[Pixels] = deque()

    def take(self, like: Pixels) -> Pixels:
        """An array of that shape and type, with anything in it."""
        try:
            found = self._free.pop()
        except IndexError:
            found = np.empty_like(like)
        if found.shape != like.shape or found.dtype != like.dtype:
            found = np.empty_like(like)
        self._lent[id(found)] = found
        return found

    def give_back(self, pixels: Pixels) -> None:
        """Say that nobody reads an array any more; one that was not taken from here is left alone."""
        if self._lent.pop(id(pixels), None) is not None:
            self._free.append(pixels)
