"""Where models come from: the contract in `base`, one kind of store in each other file, `open_weights` to choose."""

from tracereel.engine.weights.base import CheckedTensors, Weights
from tracereel.engine.weights.source import open_weights

__all__ = ["CheckedTensors", "Weights", "open_weights"]
