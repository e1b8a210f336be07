"""Which experts a step's tokens were routed to, where vLLM returns it (`--enable-return-routed-experts`)."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def expert_counts(outputs: Iterable[Any], experts: int) -> list[list[int]]:
    """For each layer how often each of its `experts` was taken, over the tokens whose routing these outputs tell.

    An output's `routed_experts` is an array (tokens, layers, experts of a token). A layer without experts has an empty
    list: vLLM leaves zeros for it, and a token's experts differ from each other. Empty where nothing is told.
    """
    told = [rows for each in outputs if (rows := getattr(each, "routed_experts", None)) is not None and len(rows)]
    if not told:
        return []
    rows = np.concatenate(told)
    return [_taken(rows[:, layer], experts) for layer in range(rows.shape[1])]


def _taken(rows: np.ndarray, experts: int) -> list[int]:
    if rows.shape[1] > 1 and not rows.any():
        return []
    counts: list[int] = np.bincount(rows.ravel(), minlength=experts).tolist()
    return counts
