"""Any valid trace renders, whatever it holds or lacks, and keeps to the layout."""

import random

import fakes
import msgspec
import pytest
from films import laid_out
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request, SamplingParams
from tracereel.film.layout import Kind
from tracereel.film.storyboards import names
from tracereel.trace.check.invariants import check
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.recordings.index import ENVIRONMENT

PAIRED = (
    *("same_position", "kv_cache_paging", "chunked_prefill", "batch_size_sweep", "speedup_waterfall"),
    *("two_of_eight", "you_are", "cut_out_the_red"),
)
"""Scenes of recordings that hold what they show; they say in one line when one does not."""
ALONE = [name for name in names() if name not in PAIRED and name != "full_length"]
"""The rest; the long film holds nothing but them."""
STRANGE = [
    "🎬🎉👩‍👩‍👧",
    "漢字かな交じり文",
    "עברית וערבית العربية",
    "a\x00\x1b[31m\u202e\u2028\u200b\ufffd",
    "W" * 500,
    "",
    "\n\t \r\n",
    "<b>&amp;%s{x}",
    "\U0010ffff",
]


class StrangeText:
    """A text for each token such as no model should give."""

    def text(self, token_id: int, last: bool = False) -> str:
        return STRANGE[token_id % len(STRANGE)]


def record(path, *, requests=6, slots=3, longest=12, first_ns=None, new_stream=fakes.FakeText, prompt=None):
    """Record a run of the fake model by the real engine."""
    config = EngineConfig(
        policy="continuous",
        max_num_seqs=slots,
        max_num_batched_tokens=max(64, slots),
        num_blocks=64 * slots,
        block_size=4,
        max_model_len=128,
    )
    rng = random.Random(1)
    with Recorder(path, fakes.header(config)) as recorder:
        engine = fakes.make_engine(config, recorder)
        engine._new_stream = new_stream
        for i in range(requests):
            ids = tuple(rng.randrange(1, fakes.VOCABULARY) for _ in range(rng.randint(1, longest)))
            text = prompt or f"prompt {i}"
            engine.add(Request(f"request-{i}", ids, SamplingParams(max_tokens=rng.randint(1, longest)), text))
        while engine.has_work:
            engine.step()


def without(path, *fields):
    """Take fields out of every record: what a source cannot know is absent."""
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        for field in fields:
            line.pop(field, None)
    rewrite(path, lines)


def rewrite(path, records):
    """Write records as a whole trace; its end record is made to fit."""
    import hashlib

    body = b"".join(msgspec.json.encode(record) + b"\n" for record in records[:-1])
    records[-1]["digest"] = hashlib.sha256(body).hexdigest()
    path.write_bytes(body + msgspec.json.encode(records[-1]) + b"\n")


def one(path):
    record(path, requests=1, slots=1)


def one_token(path):
    record(path, requests=2, slots=1, longest=1)


def many(path):
    record(path, requests=500, slots=256, longest=6)


def one_slot(path):
    record(path, requests=40, slots=1, longest=6)


def strange(path):
    record(path, requests=12, slots=4, new_stream=StrangeText, prompt="".join(STRANGE))


def no_texts(path):
    record(path)
    without(path, "texts", "prompt")


def no_kv(path):
    record(path)
    without(path, "kv_used", "blocks", "kv_blocks", "kv_block_tokens", "tokens", "scheduled_ns")


def cut(path):
    record(path, requests=20)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def only_arrivals(path):
    record(path, requests=5)
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    kept = [line for line in lines if line["event"] != "step"]
    kept[-1].update(steps=0, output_tokens=0)
    rewrite(path, kept)


def nothing(path):
    record(path, requests=0)


def late(path):
    """The clock's zero lies an hour before the first arrival."""
    record(path)
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        for field in ("arrival_ns", "submitted_ns", "start_ns", "scheduled_ns", "end_ns", "at_ns"):
            if field in line:
                line[field] += 3_600_000_000_000
    rewrite(path, lines)


KINDS = [one, one_token, many, one_slot, strange, no_texts, no_kv, cut, only_arrivals, nothing, late]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def trace(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / f"{request.param.__name__}.jsonl"
    request.param(path)
    return path


def test_the_traces_are_valid(trace):
    report = check(trace)
    assert not report.violations
    assert (report.cut is not None) == (trace.stem == "cut")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_any_trace_renders(trace, name, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(trace))
    size = (854, 480) if name != "continuous_batching" else (480, 854)
    _, frames = laid_out(name, size, rate=0.4, texts=0)
    if trace.stem == "many" and name in ("pipeline_flow", "decode_batching"):
        said = {thing.name for drawn in frames for thing in drawn if thing.kind is Kind.TEXT}
        assert any("256" in text or "more slots" in text for text in said), "what does not fit is said"
