"""Suites such as somebody might record of their own: small, even, scarce, slow, of one request, of one slot.

Their steps and queues are the engine's own, with a model that is none; their times are made up, as their headers say.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import fakes
from many_slots import record, request
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request

Timed = list[tuple[int, Request]]
_SLOTS = (1, 2, 3, 8, 8, 16, 64)
_BLOCK, _LONGEST, _ROOM = 4, 128, 64
_CASES = ("static", "same-position", "continuous", "online", "dynamic")
_STEP_MS: dict[str, Callable[[random.Random, int], float]] = {
    "even": lambda rng, tokens: 1.0,
    "by tokens": lambda rng, tokens: 1.0 + 0.1 * tokens,
    "noisy": lambda rng, tokens: rng.uniform(0.5, 3.0),
    "short": lambda rng, tokens: 0.04,
    "long": lambda rng, tokens: 2000.0,
}


@dataclass(frozen=True)
class Suites:
    """A folder of suites drawn from a seed: `film` for the film's scenes, and some of `paging`, `chunked`, `sweep`."""

    folder: Path
    seed: int

    def record(self) -> None:
        """Record all of them."""
        rng = random.Random(self.seed)
        self._film(rng)
        for one in (self._paging, self._chunked, self._sweep):
            if rng.random() < 0.75:
                one(rng)

    def _record(self, suite: str, case: str, config: EngineConfig, requests: Timed, repeats: int = 1, **times) -> None:
        times = {"step": "noisy", "seed": self.seed, **times}
        rng = random.Random(times["seed"])
        step_ns = lambda step: round(1e6 * _STEP_MS[times["step"]](rng, sum(step["computed"])))  # noqa: E731
        record(self.folder, suite, case, config, requests, repeats, step_ns)

    def _film(self, rng: random.Random) -> None:
        slots = rng.choice(_SLOTS)
        count = rng.choice([1, 2, slots, slots + 1, 2 * slots, 3 * slots + 1, 40])
        output = rng.choice(
            [lambda i: 12, lambda i: 1, lambda i: 60 if i % 7 == 0 else 4, *[lambda i: rng.randint(1, 30)] * 2]
        )
        requests = _requests(rng, count, output)
        needed = max(len(each.prompt_ids) + each.sampling.max_tokens for _, each in requests) // _BLOCK + 2
        config = EngineConfig(
            max_num_seqs=slots,
            max_num_batched_tokens=max(rng.choice([16, 64, 512]), slots),
            block_size=_BLOCK,
            max_model_len=_LONGEST,
            num_blocks=rng.choice([needed, _ROOM * slots + _ROOM]),
            enable_prefix_caching=rng.random() < 0.3,
        )
        a_step, repeats, step = rng.choice([0, 0, 1, 3]), rng.choice([1, 1, 3]), rng.choice(list(_STEP_MS))
        for case in rng.sample(_CASES, rng.randint(1, len(_CASES))):
            a_step_here = 2 if case == "online" else a_step
            coming = [(i // a_step_here if a_step_here else 0, each) for i, (_, each) in enumerate(requests)]
            policy = "continuous" if case == "online" else case
            self._record("film", case, replace(config, policy=policy), coming, repeats, step=step)

    def _paging(self, rng: random.Random) -> None:
        config = _small(rng)
        requests = _requests(rng, rng.choice([1, config.max_num_seqs, 3 * config.max_num_seqs]), lambda i: 12)
        for case, caches in (("prefix-caching", True), ("no-prefix-caching", False)):
            self._record("paging", case, replace(config, enable_prefix_caching=caches), requests)

    def _chunked(self, rng: random.Random) -> None:
        config = _small(rng)
        requests = _requests(rng, config.max_num_seqs, lambda i: rng.randint(1, 20))
        requests.append((rng.choice([0, 3]), request("long", rng, 60, rng.choice([1, 5]))))
        for case, budget in (("unchunked", 128), ("chunked", config.max_num_batched_tokens)):
            self._record("chunked", case, replace(config, max_num_batched_tokens=budget), requests)

    def _sweep(self, rng: random.Random) -> None:
        requests = _requests(rng, 12, lambda i: rng.randint(1, 20))
        for slots in rng.sample([1, 2, 4, 8], 2):
            for policy in ("static", "continuous"):
                config = replace(_small(rng), policy=policy, max_num_seqs=slots, num_blocks=400)
                self._record("sweep", f"{policy}-{slots}", config, requests)


def _small(rng: random.Random) -> EngineConfig:
    return EngineConfig(
        max_num_seqs=rng.choice([1, 2, 4, 8]),
        max_num_batched_tokens=rng.choice([16, 64]),
        block_size=_BLOCK,
        max_model_len=_LONGEST,
        num_blocks=rng.choice([24, 40, 400]),
    )


def _requests(rng: random.Random, count: int, output: Callable[[int], int]) -> Timed:
    """Requests that may begin with the same text."""
    common = tuple(rng.randrange(1, fakes.VOCABULARY) for _ in range(rng.choice([0, 0, 16])))
    return [(0, request(f"r-{i}", rng, len(common) + rng.randint(1, 20), output(i), common)) for i in range(count)]
