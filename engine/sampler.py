"""Chooses the next tokens from logits: the likeliest, or one drawn by each request's own parameters.

Knows logits and how to choose. Does not know requests, nor when they end. Members that need nothing but the likeliest
token pay for nothing else.
"""

from collections.abc import Sequence as Many

import numpy as np
import torch
from tracereel.engine.request import Samples, SampleSpec, TokenLogprobs

_HEAD = 256
"""How many of the likeliest tokens are looked at first for top-p: to sort a whole vocabulary takes far longer."""


def sample(logits: torch.Tensor, specs: Many[SampleSpec | None]) -> Samples:
    """One token for each row of the logits [rows, vocabulary]; None: the likeliest, the lowest id among equals."""
    if not specs:
        return Samples([])
    # On a CPU in bf16 the maximum with its index takes a quarter of the time of argmax.
    tokens: list[int] = logits.max(dim=-1).indices.tolist()
    chosen = [(row, spec) for row, spec in enumerate(specs) if spec is not None]
    if not chosen:
        return Samples(tokens)
    changed = [(row, spec) for row, spec in chosen if spec.params.temperature or spec.params.repetition_penalty != 1]
    if changed:
        rows, own = [row for row, _ in changed], [spec for _, spec in changed]
        for row, token in zip(rows, _choose(_penalized(logits[rows].float(), own), own), strict=True):
            tokens[row] = token
    told = [(row, spec.params.logprobs) for row, spec in chosen if spec.params.logprobs is not None]
    return Samples(tokens, _logprobs(logits, tokens, told) if told else {})


def _penalized(logits: torch.Tensor, specs: Many[SampleSpec]) -> torch.Tensor:
    """The repetition penalty of Keskar et al., "CTRL" (2019), in place."""
    for row, spec in zip(logits, specs, strict=True):
        if (penalty := spec.params.repetition_penalty) != 1:
            seen = torch.tensor(sorted(set(spec.context)), device=logits.device)
            values = row[seen]
            row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def _choose(logits: torch.Tensor, specs: Many[SampleSpec]) -> list[int]:
    tokens: list[int] = logits.max(dim=-1).indices.tolist()
    rows = [row for row, spec in enumerate(specs) if spec.params.temperature]
    if rows:
        own = [specs[row] for row in rows]
        numbers = torch.tensor([random_number(spec.key, spec.index) for spec in own], dtype=torch.float64)
        for row, token in zip(rows, _drawn(probabilities(logits[rows], own), numbers), strict=True):
            tokens[row] = token
    return tokens


def random_number(key: tuple[int, int], index: int) -> float:
    """A number in [0, 1) that depends on the key and the index and on nothing else.

    From the counter-based generator Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
    """
    words = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=[index, 0, 0, 0]).random_raw(1)
    return int(words[0] >> np.uint64(11)) / 2**53


def probabilities(logits: torch.Tensor, specs: Many[SampleSpec]) -> torch.Tensor:
    """What each row is drawn from, fp32 [rows, vocabulary]; rows add up to at most 1, tokens left out are 0.

    A row's values do not depend on the other rows. Tokens are left out by thresholds, not by their place in a sorted
    list, so that equals stay together whatever order a sort gives them.
    """

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=logits.device).unsqueeze(1)

    vocabulary = logits.shape[-1]
    x = logits / column([spec.params.temperature for spec in specs])
    if any(spec.params.min_p for spec in specs):
        x = x.masked_fill(
            x < x.amax(-1, keepdim=True) + column([spec.params.min_p for spec in specs]).log(), -torch.inf
        )
    ks = [min(spec.params.top_k, vocabulary) for spec in specs]
    if any(ks):
        likeliest = x.topk(max(ks)).values
        floor = likeliest.gather(1, torch.tensor([max(k, 1) - 1 for k in ks], device=logits.device).unsqueeze(1))
        limited = torch.tensor([k > 0 for k in ks], device=logits.device).unsqueeze(1)
        x = x.masked_fill((x < floor) & limited, -torch.inf)
    shares = x.softmax(-1)
    rows = [row for row, spec in enumerate(specs) if spec.params.top_p < 1]
    if rows:
        floor = _nucleus_floor(shares[rows], column([specs[row].params.top_p for row in rows]))
        shares[rows] = shares[rows].masked_fill(shares[rows] < floor, 0.0)
    return shares


def _nucleus_floor(shares: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The smallest probability in each row's nucleus (Holtzman et al., 2019): the fewest tokens that reach top_p."""
    head = shares.topk(min(_HEAD, shares.shape[-1])).values
    if not (head.sum(-1, keepdim=True, dtype=torch.float64) >= top_p).all():
        head = shares.sort(-1, descending=True).values
    before = head.cumsum(-1, dtype=torch.float64) - head
    return head.gather(1, ((before < top_p).sum(-1, keepdim=True) - 1).clamp(min=0))


def _drawn(shares: torch.Tensor, numbers: torch.Tensor) -> list[int]:
    """The token of each row at which the probabilities, added up in the order of ids, pass the random number."""
    sums = shares.cumsum(-1, dtype=torch.float64)
    targets = (numbers.to(shares.device).unsqueeze(1) * sums[:, -1:]).contiguous()
    ids: list[int] = torch.searchsorted(sums, targets, right=True).squeeze(1).tolist()
    return ids


def _logprobs(logits: torch.Tensor, tokens: list[int], told: list[tuple[int, int]]) -> dict[int, TokenLogprobs]:
    rows = [row for row, _ in told]
    logs = logits[rows].float().log_softmax(-1)
    chosen = logs.gather(1, torch.tensor([[tokens[row]] for row in rows], device=logits.device)).squeeze(1).tolist()
    values, ids = logs.topk(min(max(count for _, count in told), logs.shape[-1]))
    found = zip(told, chosen, values.tolist(), ids.tolist(), strict=True)
    return {
        row: TokenLogprobs(own, tuple(zip(row_ids[:count], row_values[:count], strict=True)))
        for (row, count), own, row_values, row_ids in found
    }
