"""Chooses the next tokens from logits: the likeliest, or one drawn by each request's own parameters.

Knows logits and how to choose, on the device that holds the logits; nothing here waits for a device. Does not know
requests, nor when they end. Members that take the likeliest token cost no more than that.
"""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from tracereel.engine.request import Samples, SampleSpec, TokenLogprobs

_HEAD = 256
"""How many of the likeliest tokens a CPU looks at first for top-p: to sort a whole vocabulary takes far longer."""

Specs = Many[SampleSpec | None]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of rows that asked for (row, so many of the likeliest): tensors on the logits' device."""

    asked: list[tuple[int, int]]
    chosen: torch.Tensor
    values: torch.Tensor
    ids: torch.Tensor

    def read(self) -> dict[int, TokenLogprobs]:
        """The numbers, by row; waits for them."""
        found = zip(self.asked, self.chosen.tolist(), self.values.tolist(), self.ids.tolist(), strict=True)
        return {
            row: TokenLogprobs(own, tuple(zip(row_ids[:count], row_values[:count], strict=True)))
            for (row, count), own, row_values, row_ids in found
        }


def sample(logits: torch.Tensor, fields: torch.Tensor, specs: Specs) -> Samples:
    """One token for each row of the logits [rows, vocabulary], on the host; see `choose`."""
    if not specs:
        return Samples([])
    tokens = choose(logits, fields, specs)
    logprobs = logprobs_of(logits, tokens, specs)
    return Samples(tokens.tolist(), logprobs.read() if logprobs else {})


def choose(logits: torch.Tensor, fields: torch.Tensor, specs: Specs) -> torch.Tensor:
    """One token [rows] for each row of the logits [rows, vocabulary]; a None spec takes the likeliest.

    The lowest id wins among equally likely tokens. `fields` [fields, rows] are the specs as numbers (`sample_inputs`),
    on the logits' device.
    """
    # On a CPU in bf16 the maximum with its index takes a quarter of the time of argmax.
    tokens = logits.max(dim=-1).indices
    rows = [row for row, spec in enumerate(specs) if spec is not None and _changes(spec)]
    if not rows:
        return tokens
    if logits.device.type == "cpu":
        own = [specs[row] for row in rows]
        tokens[rows] = draw(logits[rows].float(), fields[:, rows], own)
        return tokens
    # A device computes all rows sooner than it selects some: padding and greedy rows take their likeliest token.
    whole: list[SampleSpec | None] = [*specs, *[None] * (len(logits) - len(specs))]
    return draw(logits.float(), fields, whole)


def _changes(spec: SampleSpec) -> bool:
    return bool(spec.params.temperature) or spec.params.repetition_penalty != 1


def draw(logits: torch.Tensor, fields: torch.Tensor, specs: Specs) -> torch.Tensor:
    """The token of each row of fp32 logits after penalties: drawn where it has a temperature, else the likeliest."""
    logits = penalized(logits, specs)
    likeliest = logits.max(dim=-1).indices
    if not any(spec is not None and spec.params.temperature for spec in specs):
        return likeliest
    # The token at which the probabilities, added up in the order of ids, pass the random number.
    sums = probabilities(logits, fields, specs).cumsum(-1, dtype=torch.float64)
    targets = (_random_numbers(fields).unsqueeze(1) * sums[:, -1:]).contiguous()
    drawn = torch.searchsorted(sums, targets, right=True).squeeze(1)
    return torch.where(_floats(fields[0]) > 0, drawn, likeliest)


def penalized(logits: torch.Tensor, specs: Specs) -> torch.Tensor:
    """The repetition penalty of Keskar et al., "CTRL" (2019); a copy where there is one."""
    if not any(spec is not None and spec.params.repetition_penalty != 1 for spec in specs):
        return logits
    logits = logits.clone()
    for row, spec in zip(logits, specs, strict=True):
        if spec is not None and (penalty := spec.params.repetition_penalty) != 1:
            seen = torch.tensor(sorted(set(spec.context)), device=logits.device)
            values = row[seen]
            row[seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def probabilities(logits: torch.Tensor, fields: torch.Tensor, specs: Specs) -> torch.Tensor:
    """What each row is drawn from, fp32 [rows, vocabulary]; rows add up to at most 1, tokens left out are 0.

    A row's values do not depend on the other rows; `specs` only say which filters no request needs. Tokens are left out
    by thresholds, not by their place in a sorted list, so that equals stay together whatever order a sort gives them.
    """
    given = [spec.params for spec in specs if spec is not None]
    temperature, top_p, min_p = (_floats(fields[i]).unsqueeze(1) for i in (0, 2, 3))
    x = logits / torch.where(temperature > 0, temperature, 1.0)
    if any(params.min_p for params in given):
        x = x.masked_fill(x < x.amax(-1, keepdim=True) + min_p.log(), -torch.inf)
    if most := max((min(params.top_k, logits.shape[-1]) for params in given), default=0):
        top_k = fields[1].long().unsqueeze(1)
        floor = x.topk(most).values.gather(1, (top_k - 1).clamp(0, most - 1))
        x = x.masked_fill((x < floor) & (top_k > 0), -torch.inf)
    shares = x.softmax(-1)
    if any(params.top_p < 1 for params in given):
        # Greedy and padding rows have a top_p of 0 and keep all, as those with 1 do.
        limited = (top_p > 0) & (top_p < 1)
        floor = torch.where(limited, _nucleus_floor(shares, torch.where(limited, top_p, 1e-6)), 0.0)
        shares = shares.masked_fill(shares < floor, 0.0)
    return shares


def _nucleus_floor(shares: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The smallest probability in each row's nucleus (Holtzman et al., 2019): the fewest tokens that reach top_p."""
    head = None
    if shares.device.type == "cpu":  # on a device, to look whether the head suffices would be to wait for it
        head = shares.topk(min(_HEAD, shares.shape[-1])).values
    if head is None or not (head.sum(-1, keepdim=True, dtype=torch.float64) >= top_p).all():
        head = shares.sort(-1, descending=True).values
    before = head.cumsum(-1, dtype=torch.float64) - head
    return head.gather(1, ((before < top_p).sum(-1, keepdim=True) - 1).clamp(min=0))


def _floats(bits: torch.Tensor) -> torch.Tensor:
    """fp32 numbers that travelled as int32."""
    return bits.contiguous().view(torch.float32)


def _random_numbers(fields: torch.Tensor) -> torch.Tensor:
    """The random numbers in [0, 1), fp64, of 53 bits that travelled in two halves."""
    low, high = fields[4].long() & 0xFFFFFFFF, fields[5].long()
    return ((high << 32) | low).double() / 2**53


def logprobs_of(logits: torch.Tensor, tokens: torch.Tensor, specs: Specs) -> Logprobs | None:
    """The log-probabilities that were asked for; None where none were."""
    asked = [
        (row, spec.params.logprobs)
        for row, spec in enumerate(specs)
        if spec is not None and spec.params.logprobs is not None
    ]
    if not asked:
        return None
    rows = [row for row, _ in asked]
    logs = logits[rows].float().log_softmax(-1)
    values, ids = logs.topk(min(max(count for _, count in asked), logs.shape[-1]))
    return Logprobs(asked, logs.gather(1, tokens[rows].unsqueeze(1)).squeeze(1), values, ids)
