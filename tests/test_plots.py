"""Figures: what is drawn is what was measured, and a file is written whole, the same each time."""

import itertools

import fakes
import msgspec
import numpy as np
import pytest
from lazily import Lazily
from retimed import record
from tracereel.cli.main import main
from tracereel.trace.analysis.compare import group_runs
from tracereel.trace.analysis.metrics import Metrics
from tracereel.trace.analysis.step_bounds import BOUNDS, step_bounds
from tracereel.trace.export.merge import merge
from tracereel.trace.plots.names import NAMES
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS
from tracereel.trace.state.columns import Trace

pytestmark = pytest.mark.slow

batches = Lazily("tracereel.trace.plots.batches")
bounds = Lazily("tracereel.trace.plots.bounds")
runs = Lazily("tracereel.trace.plots.runs")
gallery = Lazily("tracereel.trace.plots.gallery")
style = Lazily("tracereel.trace.plots.style")


@pytest.fixture
def light():
    return style.THEMES["light"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two policies at three sizes; a step costs 1 ms, and 0.05 ms a row."""
    folder = tmp_path_factory.mktemp("sweep")
    cost = lambda e: 1_000_000 + 50_000 * (len(e["phases"]) + e.get("padding", 0))  # noqa: E731
    pairs = itertools.product(("static", "continuous"), (2, 4, 8))
    return [record(folder / f"{p}-{n}.jsonl", p, slots=n, step_ns=cost) for p, n in pairs]


def lines(figure, panel=0):
    return [line.get_xydata() for line in figure.axes[panel].get_lines() if len(line.get_xydata())]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_in_both_themes(sweep, name):
    assert set(style.THEMES) == {"light", "dark"}
    for theme in style.THEMES.values():
        with style.themed(theme):
            figure = gallery.draw(name, group_runs(sweep), theme)
            figure.draw_without_rendering()
        assert figure.axes
        assert figure.get_supxlabel().count("fake · none, random weights") == 1


def test_lines_are_the_measured_values(sweep, light):
    groups = group_runs(sweep)
    with style.themed(light):
        for drawn, group in zip(lines(gallery.draw("tokens", groups, light)), groups, strict=True):
            trace = group.traces[0]
            assert tuple(drawn[-1]) == (trace.steps.end_ns[-1] / 1e9, trace.steps.first_token[-1])
        latency = gallery.draw("latency", groups, light)
        for panel, name in enumerate(("ttft_ms", "tpot_ms", "itl_ms", "e2el_ms")):
            for drawn, group in zip(lines(latency, panel), groups, strict=True):
                assert drawn[:, 0] == pytest.approx(np.sort(getattr(Metrics(group.traces[0]), name)))
                assert drawn[-1, 1] == 1
        throughput = lines(gallery.draw("batch", groups, light))
        for policy in ("static", "continuous"):
            own = [t for t in sweep if t.header.policy == policy]
            want = [(t.header.slots, Metrics(t).output_throughput) for t in own]
            assert any(drawn.shape == (3, 2) and np.allclose(drawn, want) for drawn in throughput)


def test_bounds_are_shares_of_the_steps_time(sweep):
    trace = next(t for t in sweep if t.header.policy == "continuous" and t.header.slots == 2)
    end_ns = trace.span_ns[1]
    whole = bounds.shares_over_time(trace, np.array([0.0, end_ns]))[:, 0]
    spans = trace.steps.end_ns - trace.steps.start_ns
    by_hand = [sum(spans[step_bounds(trace) == i]) / end_ns for i in range(len(BOUNDS))]
    assert whole == pytest.approx(by_hand)
    assert whole[BOUNDS.index("slots")] > 0.5  # ten requests want two slots
    halves = bounds.shares_over_time(trace, np.array([0.0, end_ns / 2, end_ns]))
    assert halves.mean(axis=1) == pytest.approx(whole)
    assert halves[BOUNDS.index("nobody_waiting"), 0] == 0  # nobody waits only at the end
    assert halves[BOUNDS.index("nobody_waiting"), 1] > 0


def test_bounds_are_drawn_as_they_are_counted(sweep, light):
    groups = group_runs([trace for trace in sweep if trace.header.slots == 2])
    with style.themed(light):
        figure = gallery.draw("bounds", groups, light)
    assert len(figure.axes) == len(groups) == 2
    for panel, group in zip(figure.axes, batches.in_order(groups), strict=True):
        trace = group.traces[0]
        drawn = np.array([data.values - data.baseline for data in (area.get_data() for area in panel.patches)])
        edges = np.linspace(*trace.span_ns, bounds.BINS + 1)
        assert drawn == pytest.approx(100 * bounds.shares_over_time(trace, edges))
        assert panel.get_title("left") == f"what bound the steps: {group.label}, 1 run"


def test_step_times_are_medians_and_the_guess_is_called_a_guess(sweep, light):
    with style.themed(light):
        figure = gallery.draw("steps", group_runs(sweep), light)
    guess, *measured = [drawn for drawn in lines(figure) if len(drawn) > 2]
    assert guess[:, 1] == pytest.approx(
        guess[0, 1] * batches.efficiency_guess(guess[0, 0]) / batches.efficiency_guess(guess[:, 0])
    )
    for drawn in measured:
        rows = np.round(drawn[:, 0])
        assert drawn[:, 1] == pytest.approx(1 + 0.05 * rows)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label for label in labels if "ln B" in label] == [
        "not measured, a guess: efficiency max(0.5, 1 − 0.1 ln B)"
    ]
    assert batches.efficiency_guess(1.0) == 1
    assert batches.efficiency_guess(1000.0) == 0.5


def test_a_sweep_is_needed_for_batch_sizes(sweep, light):
    one = group_runs(sweep[:1])
    assert gallery.missing("slots", one) is None
    with pytest.raises(gallery.NoFigureError, match="batch: it needs runs with different numbers of slots"):
        gallery.draw("batch", one, light)


@pytest.mark.long
def test_plot_writes_what_can_be_drawn(sweep, tmp_path, capsys):
    paths = [str(trace.path) for trace in sweep]
    for kind, start in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        arguments = ["plot", *paths, "--figure", "steps", "--format", kind, "--theme", "dark"]
        written = []
        for turn in ("one", "two"):
            assert main([*arguments, "--out", str(tmp_path / turn)]) == 0
            written.append((tmp_path / turn / f"steps.{kind}").read_bytes())
        assert written[0] == written[1]
        assert written[0].startswith(start)
    assert main(["plot", *paths, "--figure", "batch", "--out", str(tmp_path / "batch")]) == 0
    assert (tmp_path / "batch" / "batch.svg").is_file()
    capsys.readouterr()
    assert main(["plot", paths[0], "--out", str(tmp_path / "all")]) == 0
    assert sorted(path.stem for path in (tmp_path / "all").iterdir()) == [
        "bounds",
        "latency",
        "queue",
        "slots",
        "steps",
        "tokens",
    ]
    assert main(["plot", paths[0], "--figure", "batch", "--out", str(tmp_path / "no")]) == 2
    assert "tracereel: batch: it needs runs" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_name_is_text_and_no_formula(tmp_path):
    path = tmp_path / "evil.jsonl"
    record(path, "static")
    first, *rest = path.read_bytes().splitlines()
    header = msgspec.json.decode(first)
    header["run"]["case"] = r"$\frac{1}{"
    header["model"]["name"] = "a$b$c_{"
    path.write_bytes(b"\n".join([msgspec.json.encode(header), *rest]) + b"\n")
    fakes.seal(path)
    assert main(["plot", str(path), "--out", str(tmp_path / "out"), "--format", "png"]) == 0


def test_no_peak_is_lost_between_the_points_of_a_line():
    values = np.full(12_345, 5)
    values[4567], values[9876] = 9, 0
    at, drawn = runs.extremes(np.arange(len(values)) / 1e9, values)
    assert len(at) == len(drawn) <= runs.POINTS
    assert (drawn[np.searchsorted(at, 4567e-9)], drawn[np.searchsorted(at, 9876e-9)]) == (9, 0)
    assert sorted(drawn.tolist())[1:-1] == [5] * (len(drawn) - 2)


def test_a_merged_trace_has_one_queue(tmp_path, light):
    paths = sorted((PACKAGE_RECORDINGS / "replicas" / "cpu").iterdir())
    merge(paths, tmp_path / "merged.jsonl")
    trace = Trace.read(tmp_path / "merged.jsonl")
    with style.themed(light):
        figure = gallery.draw("queue", group_runs([trace]), light)
    (running,) = lines(figure, 1)
    assert running[:, 1].max() == trace.header.slots
    # Recorded 11 s before its first request came; the step that took it follows at once.
    assert trace.span_ns[0] > 10e9
    assert 0 < running[0, 0] < 0.1
    with style.themed(light):
        (tokens,) = lines(gallery.draw("tokens", group_runs([trace]), light))
    assert (np.diff(tokens, axis=0) >= 0).all()
    assert tokens[-1, 1] == 3325


def test_it_is_said_where_not_all_slots_are_drawn(sweep, light, monkeypatch):
    monkeypatch.setattr("tracereel.trace.plots.runs.MOST_SLOTS", 4)
    groups = group_runs([trace for trace in sweep if trace.header.slots in (4, 8) and trace.header.policy == "static"])
    with style.themed(light):
        figure = gallery.draw("slots", groups, light)
    assert [panel.get_ylabel() for panel in figure.axes] == ["slot", "slot, the first 4 of 8"]


def test_kv_blocks_have_a_panel_where_a_trace_says_them(sweep, light):
    llama = Trace.read(PACKAGE_RECORDINGS / "llama-cpp" / "cpu" / "film-12.jsonl.zst")
    named = {}
    for trace in (llama, sweep[0]):
        with style.themed(light):
            figure = gallery.draw("queue", group_runs([trace]), light)
        named[trace.path] = [panel.get_ylabel() for panel in figure.axes]
        (waiting,) = lines(figure, 0)
        assert waiting[-1].tolist() == [(trace.span_ns[1] - trace.span_ns[0]) / 1e9, trace.steps.waiting[-1]]
    assert named[llama.path] == ["requests waiting", "requests running"]
    assert named[sweep[0].path] == ["requests waiting", "requests running", "KV blocks held\nof 200"]
