"""One rule for pairs: the film, `compare`, the waterfall, the figures and the README's table give one number."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from lazily import Lazily
from tracereel.cli.main import main
from tracereel.trace.analysis.compare import group_runs
from tracereel.trace.analysis.pairs import median_pair, pairs_of, throughput_ratio
from tracereel.trace.analysis.queries import Run, measure
from tracereel.trace.analysis.waterfall import waterfall
from tracereel.trace.format.events import decoder
from tracereel.trace.format.storage import LineReader
from tracereel.trace.state.columns import Trace

gallery = Lazily("tracereel.trace.plots.gallery")
style = Lazily("tracereel.trace.plots.style")

ROOT = Path(__file__).resolve().parents[1]
H100 = ROOT / "tests" / "data" / "h100" / "film"
CASES = ("static", "continuous")


def copy_with_clocks(source: Path, target: Path, order: list[tuple[str, int]]) -> Path:
    """Copies of a suite's recordings, made in another order by the wall clock: (case, repeat) one after the other."""
    target.mkdir()
    for place, (case, repeat) in enumerate(order):
        lines = [line for _, line in LineReader(source / f"{case}-{repeat + 1}.jsonl.zst")]
        header = decoder.decode(lines[0])
        clock = msgspec.structs.replace(header.clock, wall_ns=header.clock.wall_ns + place * 600 * 10**9)
        first = msgspec.json.encode(msgspec.structs.replace(header, clock=clock))
        # The digest is over the header too: the end record is left out, as if the recording had been stopped.
        (target / f"{case}-{repeat + 1}.jsonl").write_bytes(b"\n".join([first, *lines[1:-1]]) + b"\n")
    return target


@pytest.fixture(scope="module")
def shuffled(film_recordings, tmp_path_factory) -> Path:
    order = [("static", 0), ("static", 3), ("continuous", 1), ("continuous", 0), ("static", 1), ("continuous", 2)]
    return copy_with_clocks(film_recordings, tmp_path_factory.mktemp("shuffled") / "film", order)


def traces_of(folder: Path) -> list[list[Trace]]:
    return [[Trace.read(path) for path in sorted(folder.glob(f"{case}-*"))] for case in CASES]


@pytest.mark.long
@pytest.mark.parametrize("where", ["the package's", "an H100's", "shuffled"])
def test_everybody_gives_one_ratio(where, film_recordings, shuffled, tmp_path, capsys):
    folder = {"the package's": film_recordings, "an H100's": H100, "shuffled": shuffled}[where]
    static, continuous = traces_of(folder)
    ratio = throughput_ratio(continuous, static)
    assert ratio.n == (0 if where == "shuffled" else 5)
    # The film.
    runs = [Run(trace) for trace in (*continuous, *static)]
    measured = measure("throughput_ratio_median", runs, numerator=len(continuous))
    assert measured.value == ratio.median
    assert measure("throughput_ratio_pairs", runs, numerator=len(continuous)).value == ratio.n
    # `compare`, and the waterfall below it, which is of the pair in the middle.
    files = [str(trace.path) for trace in (*static, *continuous)]
    assert main(["compare", "--json", *files]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ratios"]["output_throughput"]["ratio"] == pytest.approx(ratio.median, rel=1e-12)
    fall = waterfall(*median_pair(static, continuous))
    assert said["waterfall"]["before_ms"] / said["waterfall"]["after_ms"] == pytest.approx(fall.speedup)
    if ratio.n:
        assert fall.speedup == pytest.approx(ratio.median, rel=1e-9)
    # The figures.
    light = style.THEMES["light"]
    with style.themed(light):
        figure = gallery.draw("tokens", group_runs([*static, *continuous]), light)
    legend = " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert f"{ratio.median:.2f}× static ({f'{ratio.n} pairs' if ratio.n else 'medians'})" in legend
    # The README's table.
    if where == "the package's":
        table = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / "film_table.py"), str(folder)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        row = next(line for line in table.splitlines() if line.startswith("| `continuous`"))
        assert f"| {ratio.median:.2f}× |" in row
        assert row in (ROOT / "README.md").read_text()


def test_runs_that_were_not_interleaved_are_no_pairs(shuffled, film_recordings):
    static, continuous = traces_of(shuffled)
    assert pairs_of(static, continuous) == []
    with pytest.raises(ValueError, match="no two runs of these cases are a pair"):
        measure("throughput_ratio_low", [Run(trace) for trace in (*continuous, *static)], numerator=3)
    static, continuous = traces_of(film_recordings)
    assert pairs_of(static, continuous) == [(i, i) for i in range(5)]
    assert pairs_of(static, continuous[1:4]) == [(1, 0), (2, 1), (3, 2)]
    assert pairs_of([*static, static[0]], continuous) == [], "a repeat that is there twice belongs to none"
    assert pairs_of(static, [*continuous, continuous[0]]) == [], "on either side"


def test_runs_made_at_the_same_time_are_no_pairs(film_recordings, tmp_path):
    together = copy_with_clocks(film_recordings, tmp_path / "film", [("static", 0), ("continuous", 0)])
    static, continuous = traces_of(together)
    assert pairs_of(static, continuous) == [(0, 0)]
    overlapping = msgspec.structs.replace(
        continuous[0].header,
        clock=msgspec.structs.replace(continuous[0].header.clock, wall_ns=static[0].header.clock.wall_ns + 10**9),
    )
    object.__setattr__(continuous[0], "header", overlapping)
    assert pairs_of(static, continuous) == []
