"""Workloads: every shape of file is read, every fault is one line, what is made up is the same each time."""

import contextlib
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.workload import Arrivals, Lengths, Prompt, TokenPrompt, Workload, WorkloadError
from tracereel.engine.workload_files import read_workload

CSV = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,8790,55
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30535, "input_length": 1200, "output_length": 26, "hash_ids": [46, 47, 90], "type": "text"}
"""
SYNTHETIC = """
requests = 40
seed = 3
arrivals = { kind = "poisson", rate = 5.0 }
prompt_tokens = { kind = "lognormal", mean = 100, sigma = 0.5, max = 300 }
output_tokens = { kind = "geometric", mean = 20, max = 60 }
"""


def written(tmp_path: Path, name: str, content: str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return path


def lengths(workload: Workload) -> list[tuple[int, int]]:
    return [(prompt.prompt_tokens, prompt.output_tokens) for _, prompt in workload.requests]


def test_azures_csv_is_read_with_its_times(tmp_path):
    workload = read_workload(written(tmp_path, "a.csv", CSV))
    assert lengths(workload) == [(374, 44), (396, 109), (8790, 55)]
    assert [at for at, _ in workload.requests] == pytest.approx([0, 4_314_579_000, 4_541_877_000], abs=2_000)
    assert "made up" in workload.notes[-1]
    # A byte order mark, further columns in any order, a time zone, Windows' line ends and blank lines change nothing.
    other = "\ufeffGeneratedTokens,x,ContextTokens,TIMESTAMP\r\n44,?,374,2023-11-16T18:15:46.680590+00:00\r\n\r\n"
    assert lengths(read_workload(written(tmp_path, "b.csv", other))) == [(374, 44)]


def test_requests_come_in_the_order_of_time_and_empty_ones_are_left_out_aloud(tmp_path):
    rows = "2023-01-01 00:00:05,10,1\n2023-01-01 00:00:01,20,2\n2023-01-01 00:00:03,30,0\n"
    workload = read_workload(written(tmp_path, "a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows))
    assert [(at, prompt.prompt_tokens) for at, prompt in workload.requests] == [(0, 20), (4_000_000_000, 10)]
    assert workload.notes[0] == "1 without prompt or output tokens are left out"


def test_mooncakes_equal_hash_ids_are_equal_tokens(tmp_path):
    workload = read_workload(written(tmp_path, "m.jsonl", MOONCAKE))
    assert lengths(workload) == [(1100, 52), (1200, 26)]
    assert [at for at, _ in workload.requests] == [0, 3_053_000_000]
    first, second = (prompt.token_ids(1000) for _, prompt in workload.requests)
    assert (len(first), len(second)) == (1100, 1200)
    assert first[:1024] == second[:1024]
    assert first[1024:1050] != second[1024:1050]
    assert max(first) < 1000


@given(st.integers(1, 2000), st.lists(st.integers(0, 3), max_size=4), st.integers(0, 3), st.integers(10, 60_000))
@settings(max_examples=50, deadline=None)
def test_made_up_tokens_have_the_length_and_avoid_what_they_are_to_avoid(length, hash_ids, seed, vocabulary):
    prompt = TokenPrompt("p", length, 1, hash_ids=tuple(hash_ids), seed=seed)
    avoid = frozenset({0, 2})
    ids = prompt.token_ids(vocabulary, avoid)
    assert len(ids) == length
    assert ids == prompt.token_ids(vocabulary, avoid)
    assert not avoid & set(ids)
    assert 0 <= min(ids) <= max(ids) < vocabulary


def test_a_synthetic_workload_is_that_of_its_seed(tmp_path):
    one, same = (read_workload(written(tmp_path, name, SYNTHETIC)) for name in ("a.toml", "b.toml"))
    other = read_workload(written(tmp_path, "c.toml", SYNTHETIC.replace("seed = 3", "seed = 4")))
    assert one.digest == same.digest != other.digest
    assert one.info().seed == 3
    assert len(one.requests) == 40
    assert all(1 <= prompt <= 300 and 1 <= output <= 60 for prompt, output in lengths(one))
    assert lengths(one) != lengths(other)
    few = read_workload(written(tmp_path, "d.toml", SYNTHETIC), limit=7)
    assert few.requests == one.requests[:7]
    assert few.notes[0] == "the first 7 of 40 requests"


@pytest.mark.parametrize(
    ("distribution", "mean"),
    [
        (Lengths("fixed", mean=30), 30),
        (Lengths("uniform", min=10, max=50), 30),
        (Lengths("lognormal", mean=200, sigma=0.5), 200),
        (Lengths("geometric", mean=30), 30),
    ],
)
def test_lengths_have_the_mean_they_are_asked_for(distribution, mean):
    drawn = distribution.draw(20_000, random.Random(1))
    assert statistics.mean(drawn) == pytest.approx(mean, rel=0.03)
    assert min(drawn) >= 1


def test_arrivals_come_at_their_rate():
    prompts = [Prompt(str(i), "x", 1) for i in range(4000)]
    for arrivals in (Arrivals("fixed", 20.0), Arrivals("poisson", 20.0, 7), Arrivals("bursts", 20.0, 7, burst=8)):
        workload = Workload.of("w", prompts, arrivals)
        assert workload.rate == pytest.approx(20, rel=0.15)
        times = [at for at, _ in workload.requests]
        assert times == sorted(times)
    assert len(set(times)) == 500, "eight come together"


def test_times_are_scaled_by_a_factor_or_to_a_rate(tmp_path):
    workload = read_workload(written(tmp_path, "a.csv", CSV))
    twice = workload.scaled(0.5)
    assert [at for at, _ in twice.requests] == [round(at / 2) for at, _ in workload.requests]
    assert "multiplied by 0.5" in twice.arrivals
    assert workload.at_rate(10).rate == pytest.approx(10)
    assert workload.digest != twice.digest
    together = Workload.of("w", [Prompt(str(i), "x", 1) for i in range(50)], Arrivals())
    assert together.at_once
    assert str(together.at_rate(4, seed=1).arrivals) == "poisson, 4 requests/s"
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(WorkloadError, match="is not above 0"):
            workload.scaled(wrong)
        with pytest.raises(WorkloadError, match="is not above 0"):
            workload.at_rate(wrong)


def test_what_is_clipped_is_said(tmp_path):
    workload = read_workload(written(tmp_path, "a.csv", CSV))
    assert workload.clipped(10_000) is workload
    clipped = workload.clipped(100)
    assert lengths(clipped) == [(56, 44), (1, 99), (45, 55)]
    assert "3 of 3 requests are clipped to max_model_len, 100 tokens (the longest has 8,845)" in clipped.notes[-1]
    assert clipped.digest != workload.digest


def test_a_limit_takes_the_first(tmp_path):
    assert lengths(read_workload(written(tmp_path, "a.csv", CSV), limit=1)) == [(374, 44)]
    # What lies behind the limit is not even looked at.
    broken = written(tmp_path, "b.csv", CSV + "nonsense\n")
    assert len(read_workload(broken, limit=3).requests) == 3
    prompts = written(tmp_path, "p.jsonl", '{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n')
    assert [prompt.id for _, prompt in read_workload(prompts, limit=1).requests] == ["a"]


HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "holds no request"),
        ("a.csv", HEAD, "holds no request"),
        ("a.csv", "TIMESTAMP,Context,GeneratedTokens\n", "line 1: there is no column ContextTokens"),
        ("a.csv", HEAD + "yesterday,1,2\n", "line 2: TIMESTAMP: 'yesterday' is not an ISO 8601 time"),
        ("a.csv", HEAD + "2023-01-01 00:00:00,many,2\n", "line 2: ContextTokens: 'many' is not a whole number"),
        ("a.csv", HEAD + "2023-01-01 00:00:00,1,-2\n", "line 2: GeneratedTokens: -2 is not 0 to"),
        ("a.csv", HEAD + "2023-01-01 00:00:00,1\n", "line 2: GeneratedTokens: the line ends before it"),
        ("a.csv", HEAD + "2023-01-01,1,\udcff\n", "line 2: is not CSV in UTF-8"),
        ("m.jsonl", '{"input_length": 5, "output_length": 1}\n', "line 1: Object missing required field `timestamp`"),
        ("m.jsonl", MOONCAKE + "{}\n", "line 3: Object missing required field"),
        (
            "m.jsonl",
            '{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [1, 2]}\n',
            "line 1: hash_ids: 2 for 1 blocks of 512 tokens",
        ),
        ("m.jsonl", '{"timestamp": -1, "input_length": 5, "output_length": 1}\n', "line 1: timestamp: -1 is not"),
        ("m.jsonl", '{"timestamp": 0, "input_length": 5.5, "output_length": 1}\n', "line 1: Expected `int`"),
        ("p.jsonl", '{"id": "a", "prompt": "x", "arrival_ms": -1}\n', "line 1: arrival_ms: -1.0 is not 0 to"),
        ("p.jsonl", '{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y", "arrival_ms": 3}\n', "'a' has none"),
        ("s.toml", "requests = 0\n", "Object missing required field"),
        ("s.toml", SYNTHETIC.replace("requests = 40", "requests = 0"), "requests: 0 is not 1 to"),
        ("s.toml", SYNTHETIC.replace("geometric", "gauss"), "output_tokens: kind 'gauss' is not one of"),
        ("s.toml", SYNTHETIC.replace("mean = 100", "mean = 0"), "prompt_tokens: mean 0 is not 1 to"),
        ("s.toml", SYNTHETIC.replace("rate = 5.0", "rate = 0"), "arrivals: rate 0.0 is not above 0"),
        ("s.toml", SYNTHETIC.replace("rate = 5.0", "rate = 5.0, seed = 2"), "arrivals: seed: one seed"),
        ("s.toml", SYNTHETIC.replace("rate = 5.0", "rate = 5.0, speed = 2"), "unknown field `speed`"),
        ("s.toml", "nonsense", "s.toml: "),
        ("nowhere.csv", None, "nowhere.csv: cannot be read (No such file or directory)"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        written(tmp_path, name, content)
    with pytest.raises(WorkloadError) as fault:
        read_workload(path)
    assert message in str(fault.value)
    assert str(path) in str(fault.value) or "arrivals" in str(fault.value)
    assert "\n" not in str(fault.value)


@given(content=st.binary(max_size=200), name=st.sampled_from(["x.csv", "x.jsonl", "x.toml"]))
@settings(max_examples=200, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes((HEAD.encode() if name == "x.csv" else b"") + content)
    with contextlib.suppress(WorkloadError):
        assert read_workload(path).requests
