"""Workloads: every shape of file is read, every fault is one line, what is made up is the same each time."""

import contextlib
import gzip
import json
import os
import random
import statistics
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tracereel.engine.recording import request_of
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.workload import Arrivals, Lengths, Prompt, TokenPrompt, Workload, WorkloadError
from tracereel.engine.workload_files import read_workload
from tracereel.trace.format.events import encoder

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


def test_a_workload_says_whose_each_request_is(tmp_path):
    lines = '{"prompt": "a", "output_tokens": 2, "client": "one"}\n{"prompt": "b", "output_tokens": 2}\n'
    prompts = read_workload(written(tmp_path, "a.jsonl", lines))
    assert [prompt.client for _, prompt in prompts.requests] == ["one", None]
    nobodys = read_workload(written(tmp_path, "b.jsonl", lines.replace(', "client": "one"', "")))
    assert prompts.digest != nobodys.digest
    drawn = read_workload(written(tmp_path, "c.toml", f"{SYNTHETIC}clients = {{ heavy = 9, light = 1 }}\n"))
    clients = Counter(prompt.client for _, prompt in drawn.requests)
    assert clients["heavy"] > 3 * clients["light"] > 0
    plain = read_workload(written(tmp_path, "c.toml", SYNTHETIC))
    assert lengths(drawn) == lengths(plain)
    assert drawn.digest != plain.digest
    model = SimpleNamespace(config=SimpleNamespace(vocabulary=300))
    loaded = SimpleNamespace(model=model, tokenizer=ChatTokenizer.of_bytes(300))
    assert {request_of(prompt, loaded).client for _, prompt in drawn.requests} == {"heavy", "light"}
    assert request_of(prompts.requests[0][1], loaded).client == "one"


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
        ("s.toml", SYNTHETIC + "clients = { a = 0 }", "clients: 'a': 0 is not 1 to 1,000,000"),
        ("s.toml", SYNTHETIC + f"clients = {{ {'c' * 600} = 1 }}", "clients: 'ccc"),
        ("a.jsonl", json.dumps({"prompt": "a", "client": "c" * 600}), "line 1: client: 'ccc"),
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


# Files that are opened once, and known for what they are


LINES = "".join(json.dumps({"id": f"p{i}", "prompt": "x" * 200, "output_tokens": 2}) + "\n" for i in range(2000))
SYNTHETIC_FROM_A_PIPE = SYNTHETIC.lstrip()


def through_a_pipe(tmp_path, content):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
    return path


@pytest.mark.parametrize(
    ("content", "count"),
    [(LINES, 2000), (CSV, 3), (MOONCAKE, 2), (SYNTHETIC_FROM_A_PIPE, 40)],
    ids=["prompts", "csv", "mooncake", "toml"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
def test_a_workload_from_a_pipe_is_whole(tmp_path, content, count, pack):
    assert len(read_workload(through_a_pipe(tmp_path, pack(content.encode()))).requests) == count


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.csv", CSV), ("a.toml", SYNTHETIC)])
def test_a_packed_workload_is_the_one_that_was_packed(tmp_path, name, content, suffix, pack):
    packed = tmp_path / (name + suffix)
    packed.write_bytes(pack(content.encode()))
    assert read_workload(packed).requests == read_workload(written(tmp_path, name, content)).requests
    packed.write_bytes(pack(content.encode()) * 2)
    if name == "a.jsonl":
        with pytest.raises(WorkloadError, match="line 2001: id: 'p0' is on an earlier line"):
            read_workload(packed)
    packed.write_bytes(pack(content.encode())[:-9])
    with pytest.raises(WorkloadError, match="cannot be unpacked"):
        read_workload(packed)


SHAREGPT = json.dumps([{"id": "a", "conversations": [{"from": "human", "value": "hi"}]}])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
        ("a.json", SHAREGPT, "holds conversations, as ShareGPT's files do"),
        ("stdin", SHAREGPT, "holds conversations, as ShareGPT's files do"),
        ("a.jsonl", '{"conversations": []}\n', "holds conversations, as ShareGPT's files do"),
        ("a.jsonl", '{"messages": []}\n', "holds conversations as lists of messages"),
        ("a.jsonl", '{"custom_id": "a", "body": {}}\n', "is a batch file of OpenAI's interface"),
        ("a.json", "[1, 2]", "is one JSON list, not JSON Lines"),
        ("a.jsonl", "PK\x03\x04", "is a zip archive"),
        ("a.jsonl", "PAR1", "is a Parquet file"),
        ("a.jsonl", "<!DOCTYPE html>", "is a web page"),
        ("a.csv", "\udcff\udcfeT", "is text in UTF-16"),
        ("a.jsonl", '{"id": "' + "x" * 600 + '", "prompt": "x"}', "line 1: id: 'xxxx"),
        ("a.jsonl", '{"id": "\\ud83d", "prompt": "x"}', "line 1: "),
        ("a.jsonl", '{"id": "a", "prompt": "\\ud83d"}', "line 1: "),
        ("a.jsonl", '{"id": "a", "prompt": "\udcff"}', "line 1: "),
        ("a.jsonl", '{"id": "a", "prompt": "x", "output_tokens": 99999999999}', "output_tokens: 99999999999 is more"),
        ("a.jsonl", "[" * 100_000, "is one JSON list"),
        ("a.jsonl", '{"a":' * 100_000, "line 1: "),
        (
            "a.toml",
            SYNTHETIC.replace("seed = 3", "seed = 99999999999999999999"),
            "seed: 99999999999999999999: Expected",
        ),
        ("a.toml", SYNTHETIC.replace("seed = 3", "seed = " + "9" * 5000), "a.toml: "),
        ("a.toml", "a = " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("a.toml", SYNTHETIC.replace("rate = 5.0", "rate = 1e-300"), "rate 1e-300: a request would come later than"),
        ("a.toml", SYNTHETIC.replace('"poisson"', '"fixed"').replace("5.0", "1e-300"), "rate 1e-300: a request would"),
        ("a.toml", SYNTHETIC.replace("rate = 5.0", 'rate = "x"'), "Expected `float`"),
        ("a.toml", SYNTHETIC.replace('"poisson"', '"bursts"').replace("5.0", f"5.0, burst = 1{'0' * 400}"), "burst"),
        ("a.toml", SYNTHETIC.replace("requests = 40", f"requests = 1{'0' * 400}"), "requests: 1000"),
        ("a.toml", SYNTHETIC + "#\udcff\n", "is not UTF-8"),
        ("a.toml", "#" * 2_000_000, "is larger than"),
        ("m.jsonl", '{"timestamp": 0, "input_length": 5, "output_length": 1' + "0" * 99 + "}\n", "line 1: "),
        ("m.jsonl", '{"timestamp": 1e300, "input_length": 5, "output_length": 1}\n', "timestamp: 1e+300 is not"),
        (
            "m.jsonl",
            '{"timestamp": 0.5, "input_length": 5, "output_length": 1}\n',
            "no whole number of ms; name its unit",
        ),
        ("c.csv", HEAD + "2023-01-01," + "9" * 5000 + ",1\n", "line 2: ContextTokens: '9999"),
        ("c.csv", HEAD + '2023-01-01,1,"\n', "line 2: "),
        ("c.csv", HEAD + "2023-01-01,1,1\n9023-01-01,1,1\n", "would come later than"),
    ],
)
def test_what_is_no_workload_is_refused_for_what_it_is(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(WorkloadError) as fault:
        read_workload(path)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 500


def test_a_folder_is_no_workload(tmp_path):
    with pytest.raises(WorkloadError, match="is a folder"):
        read_workload(tmp_path)


def test_vllms_custom_lines_are_read_with_the_numbers_of_their_lines(tmp_path):
    path = written(tmp_path, "v.jsonl", '{"prompt": "x", "output_tokens": 3}\n\n{"prompt": "y", "output_tokens": 4}\n')
    assert [(p.id, p.prompt, p.output_tokens) for _, p in read_workload(path).requests] == [
        ("line 1", "x", 3),
        ("line 3", "y", 4),
    ]


def test_a_files_name_that_is_no_utf8_is_recorded_as_what_can_be_written(tmp_path):
    path = tmp_path / os.fsdecode(b"w\xff.jsonl")
    path.write_text('{"id": "a", "prompt": "x", "output_tokens": 3}\n')
    assert read_workload(path).info().name == "w?.jsonl"


# Units


def trace_line(**fields):
    return json.dumps({"timestamp": 0, "input_length": 40, "output_length": 3, "hash_ids": [1, 2, 3]} | fields) + "\n"


BAILIAN = "".join(
    trace_line(chat_id=i, parent_chat_id=-1, turn=1, type="text", timestamp=0.5 * i, hash_ids=[1, 2, 3 + i])
    for i in range(4)
)


def test_bailians_traces_count_seconds_and_blocks_of_16_tokens(tmp_path):
    workload = read_workload(written(tmp_path, "b.jsonl", BAILIAN))
    assert [at for at, _ in workload.requests] == [0, 500_000_000, 1_000_000_000, 1_500_000_000]
    assert "times are in s, a hash id stands for 16 tokens" in workload.notes
    first, second = (prompt.token_ids(1000) for _, prompt in workload.requests[:2])
    assert first[:32] == second[:32]
    assert first[32:] != second[32:]


@pytest.mark.parametrize(("unit", "ns"), [("s", 3_000_000_000), ("ms", 3_000_000), ("us", 3_000), ("ns", 3)])
def test_units_that_are_named_are_those_that_are_used(tmp_path, unit, ns):
    path = written(tmp_path, "m.jsonl", trace_line() + trace_line(timestamp=3))
    workload = read_workload(path, time_unit=unit, hash_block_tokens=16)
    assert [at for at, _ in workload.requests] == [0, ns]
    assert f"times are in {unit}, a hash id stands for 16 tokens" in workload.notes
    with pytest.raises(WorkloadError, match="3 for 1 blocks of 512 tokens; name what one stands for with --hash-block"):
        read_workload(path)
    with pytest.raises(WorkloadError, match="time unit: 'h' is not one of s, ms, us, ns"):
        read_workload(path, time_unit="h")
    with pytest.raises(WorkloadError, match="has no units to name"):
        read_workload(written(tmp_path, "a.csv", CSV), time_unit="s")


def test_columns_that_are_not_used_are_said(tmp_path):
    head = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens,Region\n"
    workload = read_workload(written(tmp_path, "a.csv", head + "2023-01-01 00:00:00,3,10,1,west\n"))
    assert "columns that are not used: NumImages, Region; images are not part of the prompts" in workload.notes
    workload = read_workload(written(tmp_path, "m.jsonl", trace_line(timestamp=1, hash_ids=[1], delay=4, type="text")))
    assert "fields that are not used: delay" in workload.notes


@pytest.mark.parametrize("rate", [1e-300, 5e-324, 1e-15])
def test_a_rate_that_takes_longer_than_a_life_is_refused(tmp_path, rate):
    together = Workload.of("w", [Prompt(str(i), "x", 1) for i in range(5)], Arrivals())
    for workload in (together, read_workload(written(tmp_path, "a.csv", CSV))):
        with pytest.raises(WorkloadError, match=r"rate .*: a request would come later than 1,000,000,000 seconds"):
            workload.at_rate(rate)
    with pytest.raises(WorkloadError, match="time scale 1e"):
        read_workload(written(tmp_path, "a.csv", CSV)).scaled(1e300)


# Whatever else


def mutated(content: str, rng: random.Random) -> bytes:
    """The content with some bytes, numbers or words exchanged."""
    words = [
        b"99999999999999999999",
        b"-1",
        b"1e999",
        b"nan",
        b"null",
        b"\xff",
        b"\x00",
        b"[[[[",
        b"{",
        b'"',
        b"\\ud83d",
    ]
    found = bytearray(content.encode())
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(found))
        found[at : at + rng.randint(0, 4)] = rng.choice([*words, bytes([rng.randrange(256)]), b"9" * 5000])
    return bytes(found)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", CSV), ("m.jsonl", MOONCAKE), ("b.jsonl", BAILIAN), ("s.toml", SYNTHETIC), ("p.jsonl", LINES[:1000])],
)
def test_a_mutated_file_is_read_within_its_bounds_or_refused_in_a_line(tmp_path, name, content):
    rng = random.Random(name)
    read = 0
    for _ in range(150):
        path = tmp_path / name
        path.write_bytes(mutated(content, rng))
        said = ""
        try:
            workload = read_workload(path)
        except WorkloadError as error:
            said = str(error)
        assert "\n" not in said
        if said:
            continue
        read += 1
        assert encoder.encode(workload.info())
        for at, prompt in workload.requests:
            assert 0 <= at <= 10**18
            assert len(prompt.id) <= 512
            prompt.id.encode()
    assert read < 150
