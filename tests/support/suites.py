"""Small suites, recorded by the real engine around the fake model."""

import random

import fakes
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request, SamplingParams
from tracereel.trace.format.events import RunInfo
from tracereel.trace.format.recorder import Recorder

SHARED = tuple(range(1, 17))
"""The beginning of every prompt."""


def prompts(count):
    rng = random.Random(3)
    return [
        Request(
            f"request-{i}",
            (*SHARED, *(rng.randrange(1, fakes.VOCABULARY) for _ in range(rng.randint(2, 9)))),
            SamplingParams(max_tokens=rng.randint(6, 30), min_tokens=6),
            f"prompt {i}",
        )
        for i in range(count)
    ]


def record(folder, suite, case, requests, late=(), repeats=2, **settings):
    """Record a case's repeats; the requests of `late` arrive when the others have decoded for a while."""
    config = EngineConfig(max_model_len=512, **settings)
    for repeat in range(repeats):
        run = RunInfo(suite=suite, case=case, repeat=repeat, repeats=repeats)
        with Recorder(folder / f"{suite}-{case}-{repeat}.jsonl", fakes.header(config, run=run)) as recorder:
            engine = fakes.make_engine(config, recorder)
            for request in requests:
                engine.add(request)
            for _ in range(8 if late else 0):
                engine.step()
            for request in late:
                engine.add(request)
            while engine.has_work:
                engine.step()
