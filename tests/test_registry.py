"""One registry of metrics: what it holds is what is shown, documented, compared and asked."""

import ast
import json
import re
from pathlib import Path

import pytest
from tracereel.cli.main import main
from tracereel.trace.analysis.metrics import Distribution, Metrics
from tracereel.trace.analysis.queries import QUERIES, Run, measure
from tracereel.trace.analysis.registry import METRICS, Metric, compared, compared_title, register, schema_table

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "trace" / "SCHEMA.md"


@pytest.fixture(scope="module")
def run(film_recordings) -> Run:
    return Run.read(film_recordings / "online-1.jsonl.zst")


@pytest.fixture
def longest():
    metric = Metric(
        "longest_output",
        "longest output",
        "tokens",
        "output tokens of the request that has most",
        lambda metrics: int(metrics.output_lengths.max()),
        compared=True,
    )
    register(metric)
    yield metric
    del METRICS["longest_output"]


def test_the_pages_table_is_the_registry():
    lacking = [row for row in schema_table().splitlines() if row not in SCHEMA.read_text()]
    assert not lacking, "trace/SCHEMA.md lacks, in its table of metrics:\n" + "\n".join(lacking)
    assert schema_table() in SCHEMA.read_text(), "the rows of the table of metrics are in the order of the registry"


def test_every_metric_is_what_it_says(run):
    for metric in METRICS.values():
        result = metric.of(run.metrics)
        assert isinstance(result, Distribution) == metric.distribution, metric.name
        assert metric.label
        assert metric.definition
        assert metric.name not in QUERIES or metric.name in ("output_tokens", "idle_slot_steps"), (
            f"{metric.name}: a query of that name hides the metric"
        )


def test_a_new_metric_is_everywhere(longest, run, film_recordings, capsys):
    want = int(run.metrics.output_lengths.max())
    assert measure("longest_output", [run]).value == want
    assert "longest_output" in compared()
    assert compared_title("longest_output") == "longest output, tokens"
    file = str(film_recordings / "online-1.jsonl.zst")
    assert main(["inspect", file]) == 0
    said = capsys.readouterr().out
    assert "longest output, tokens" in said
    assert "longest output: output tokens of the request that has most" in said
    assert main(["inspect", "--json", file]) == 0
    assert json.loads(capsys.readouterr().out)["longest_output"] == want
    sides = [str(film_recordings / f"{case}-1.jsonl.zst") for case in ("static", "continuous")]
    assert main(["compare", "--json", *sides]) == 0
    assert json.loads(capsys.readouterr().out)["ratios"]["longest_output"]["ratio"] == 1.0
    assert main(["diff", "--json", *sides]) == 0
    assert json.loads(capsys.readouterr().out)["ratios"]["longest_output"]["ratio"] == 1.0
    with pytest.raises(ValueError, match="there is a metric 'longest_output' already"):
        register(longest)


def test_a_part_of_a_distribution_can_be_asked_for(run):
    found = measure("ttft_ms", [run], part="p99")
    assert found.value == Distribution.of(Metrics(run.trace).ttft_ms).p99
    assert measure("steps", [run]).value == len(run.trace.steps)
    for args in ({}, {"part": "p98"}, {"part": "p50", "more": 1}):
        with pytest.raises(ValueError, match=r"by its part|does not say"):
            measure("ttft_ms", [run], **args)
    with pytest.raises(ValueError, match="goodput"):
        measure("goodput", [run])


def strings_of(path):
    """Every string in a file as a pattern of all it can be: an f-string's places may hold anything."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in node.values]
            text = "".join(part.value for part in node.values if isinstance(part, ast.Constant))
            if "_" in text and len(text) > 6:  # "_per_token" says which; "_ms" and "s" could be anything
                yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield re.escape(node.value)


@pytest.mark.slow
def test_every_query_is_asked_by_somebody():
    rooms = ("film", "player", "cli", "trace", "scenes", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    said = {pattern for path in files for pattern in strings_of(path)}
    pattern = re.compile("|".join(pattern for pattern in said if len(pattern) < 60))
    own = [name for name, function in QUERIES.items() if function.__module__.startswith("tracereel.")]
    assert len(own) > 100
    assert not [name for name in own if not pattern.fullmatch(name)]
