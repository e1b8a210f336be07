"""Chooses the next tokens from logits."""

import torch


def greedy(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row [rows, vocabulary], on the host; the lowest id among equals."""
    ids: list[int] = logits.argmax(dim=-1).tolist()
    return ids
