"""The contract of a source of weights: configuration, tensors by name, tokenizer, and the name a trace gives it."""

from typing import Protocol

import torch
from tracereel.engine.model_config import ModelConfig, ModelFileError
from tracereel.engine.tokenizer import ChatTokenizer


class Weights(Protocol):
    """A model as it is stored.

    Tensors have Hugging Face's names (`ModelConfig.tensors` lists them) and their rows are in Hugging Face's order,
    whatever names and order the store has. They are read one at a time, so that no model is ever held twice.
    """

    name: str
    config: ModelConfig
    random: bool
    """Were the numbers drawn at random rather than learnt?"""

    def names(self) -> set[str]:
        """The tensors that there are."""

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, which is known before the tensor is read. Raises ModelFileError."""

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """One tensor. Raises ModelFileError where it cannot be read."""

    def tokenizer(self) -> ChatTokenizer:
        """The model's tokenizer; one that knows no text where the store has none. Raises ModelFileError."""

    def digest(self) -> str:
        """SHA-256 (hex) over all that the weights are made of."""


class CheckedTensors:
    """Reads a model's tensors onto a device, and refuses what does not fit its configuration.

    Its constructor raises ModelFileError where tensors are missing, or where there are some that this architecture does
    not use: in the model that the file is of, they change the answers.
    """

    def __init__(self, weights: Weights, device: torch.device, dtype: torch.dtype):
        self._weights, self._device, self._dtype = weights, device, dtype
        self._shapes = weights.config.tensors()
        expected, found = set(self._shapes), weights.names()
        if missing := sorted(expected - found):
            raise ModelFileError(f"{weights.name}: the tensor {missing[0]} is missing ({len(missing)} missing in all)")
        # A tied model's file may still hold the output matrix.
        if unknown := sorted(found - expected - {"lm_head.weight"}):
            raise ModelFileError(
                f"{weights.name}: holds the tensor {unknown[0]}, for which {weights.config.architecture!r} has no use"
                f" here ({len(unknown)} such in all)"
            )

    def __getitem__(self, name: str) -> torch.Tensor:
        """One tensor. Raises ModelFileError where it cannot be read or is of another shape."""
        found, expected = self._weights.shape_of(name), self._shapes[name]
        if found != expected:
            raise ModelFileError(f"{self._weights.name}: {name} has the shape {list(found)}, expected {list(expected)}")
        return self._weights.read(name, self._device, self._dtype)
