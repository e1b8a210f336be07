"""`tracereel report`: what inspect, compare and plot say in one file, escaped, and nothing that needs a network."""

import base64
import hashlib
import html
import re

import fakes
import msgspec
import pytest
from tracereel.cli.main import main
from tracereel.trace.analysis.compare import estimate, group_runs
from tracereel.trace.analysis.registry import METRICS, compared, compared_title, measured
from tracereel.trace.analysis.step_bounds import WORDS, bound_shares
from tracereel.trace.format.events import RunInfo
from tracereel.trace.state.columns import Trace

MB = 2**20


def report(tmp_path, *arguments):
    out = tmp_path / "report.html"
    assert main(("report", *map(str, arguments), "--out", str(out))) == 0
    return out.read_text("utf-8")


def cells(text):
    """Every row of every table as texts."""
    rows = re.findall(r"<tr>(.*?)</tr>", text)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


@pytest.fixture(scope="module")
def film_report(film_recordings, tmp_path_factory):
    pytest.importorskip("matplotlib")
    paths = [film_recordings / f"{case}-{i}.jsonl.zst" for case in ("static", "continuous") for i in (1, 2, 3)]
    return paths, report(tmp_path_factory.mktemp("report"), *paths)


@pytest.mark.long
def test_the_comparison_is_what_compare_says(film_report):
    paths, text = film_report
    base, other = group_runs([Trace.read(path) for path in paths])
    rows = {row[0]: row[1:] for row in cells(text) if len(row) == 5}
    shown = 0
    for key in compared():
        ratio = estimate(base, other, key)
        if ratio is not None and compared_title(key) in rows:
            assert rows[compared_title(key)][2:] == [f"{ratio.ratio:.2f}×", f"{ratio.low:.2f}× to {ratio.high:.2f}×"]
            shown += 1
    assert shown > 8
    assert "as it was" in rows or any(row[0] == "as it was" for row in cells(text))


@pytest.mark.slow
def test_every_run_its_digest_and_every_definition_is_there(film_report):
    paths, text = film_report
    traces = [Trace.read(path) for path in paths]
    for trace in traces:
        assert trace.path.name in text
        assert trace.name in text
    facts = measured(traces[0])
    for metric in METRICS.values():
        if facts[metric.name] is not None and (not metric.distribution or facts[metric.name]["n"]):
            assert f"{metric.label}: {metric.definition}" in html.unescape(text)


@pytest.mark.slow
def test_it_is_one_small_file_that_allows_its_own_program_alone(film_report):
    paths, text = film_report
    assert len(text) < 3 * MB
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text.split("<iframe")[0])
    assert str(paths[0].parent) not in text, "the folders of whoever made it are nobody's business"
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    framed = html.unescape(re.search(r'<iframe srcdoc="([^"]*)"', text)[1])
    for tag in ("script", "style"):
        blocks = re.findall(rf"<{tag}(?: type=\"module\")?>(.*?)</{tag}>", framed, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy


@pytest.mark.long
def test_text_of_a_trace_is_never_markup(tmp_path):
    pytest.importorskip("matplotlib")
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u202e'
    paths = []
    for case in ("a", hostile):
        path = tmp_path / f"{'ab'[case == hostile]}<b>.jsonl"
        fakes.record_small_run(path, run=RunInfo(suite="own", case=case, repeat=0, repeats=1))
        records = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        records[0]["device"]["name"] = hostile
        path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
        fakes.seal(path)
        paths.append(path)
    text = report(tmp_path, *paths)
    outside = re.sub(r'<iframe srcdoc="[^"]*"', "", text)
    outside = re.sub(r'<script type="application/json" id="[a-z-]+">[^<]*</script>', "", outside)  # data, never run
    assert "<script" not in outside
    assert "<img src=x" not in outside
    assert "<b>" not in outside
    assert "\u202e" not in outside
    assert html.escape("<script>alert(1)") in outside


@pytest.mark.slow
def test_where_a_recording_contradicts_itself_is_said_at_the_top_and_with_its_run(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.jsonl"
    fakes.record_small_run(path)
    header, *records = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    step = next(record for record in records if "phases" in record)
    step["running"] += 1
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in (header, *records)))
    fakes.seal(path)
    head, runs = report(tmp_path, path).split(">Runs</h2>", 1)
    said = f"a.jsonl: This recording contradicts itself: line {records.index(step) + 2}: "
    assert f'<p class="warning">{said}' in head
    assert said in runs


@pytest.mark.slow
def test_one_case_has_its_metrics_and_no_comparison(small_trace, tmp_path):
    pytest.importorskip("matplotlib")
    text = report(tmp_path, small_trace)
    assert "against" not in text.split("<iframe")[0]
    assert small_trace.name in text
    shares = {
        WORDS[name]: f"{100 * share:,.1f} %" for name, share in bound_shares(Trace.read(small_trace)).items() if share
    }
    assert len(shares) > 1
    assert {row[0]: row[1] for row in cells(text) if row[:1] and row[0] in shares and row[-1].endswith("%")} == shares


def test_runs_that_cannot_be_compared_are_refused_by_what_differs(film_recordings, tmp_path, capsys):
    paths = [film_recordings / "continuous-1.jsonl.zst", film_recordings / "online-1.jsonl.zst"]
    assert main(("report", *map(str, paths), "--out", str(tmp_path / "r.html"))) == 2
    assert "workload" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


@pytest.mark.long
def test_a_figure_of_many_strokes_goes_in_as_pixels(small_trace, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from tracereel.cli import report as command
    from tracereel.trace.plots import gallery

    monkeypatch.setattr(command, "LARGEST_SVG", 1000)
    monkeypatch.setattr(gallery, "FIGURES", {"slots": gallery.FIGURES["slots"]})
    text = report(tmp_path, small_trace)
    assert "data:image/png;base64," in text
    assert "tracereel plot --figure slots" in text


def verified(capsys, path, traces):
    capsys.readouterr()
    code = main(("verify", str(path), "--trace", *map(str, traces)))
    return code, capsys.readouterr()


@pytest.mark.slow
def test_a_report_is_what_its_traces_say(film_report, tmp_path, capsys):
    paths, text = film_report
    file = tmp_path / "report.html"
    file.write_text(text, "utf-8")
    code, said = verified(capsys, file, paths)
    assert code == 0, said
    assert re.search(r"6 run\(s\), [1-9]\d* figures, 0 fault", said.out)


@pytest.fixture(scope="module")
def two_runs(film_recordings, tmp_path_factory):
    """A report with one figure, as drawing is slow."""
    pytest.importorskip("matplotlib")
    from tracereel.trace.plots import gallery

    paths = [film_recordings / f"{case}-1.jsonl.zst" for case in ("static", "continuous")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery, "FIGURES", {"steps": gallery.FIGURES["steps"]})
        yield paths, report(tmp_path_factory.mktemp("two"), *paths, "--slo", "ttft=2000")


@pytest.mark.long
def test_whatever_is_changed_in_a_report_is_found(two_runs, tmp_path, capsys):
    paths, text = two_runs
    ratio = re.search(r"<td>(\d+\.\d\d)×</td>", text)[1]
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', text)[1]
    redrawn = base64.b64encode(base64.b64decode(picture).replace(b"<svg", b"<svg data-a='1'", 1)).decode()
    changes = {
        "against static: not what is made": text.replace(f"<td>{ratio}×</td>", "<td>9.99×</td>", 1),
        "Metrics and provenance: not what is made": text.replace("ttft", "tpot", text.count("ttft") - 1),
        "Runs: not what is made": text.replace("static-1.jsonl.zst</th>", "static-9.jsonl.zst</th>", 1),
        "its head: not what is made": text.replace("script-src", "script-src 'unsafe-inline'", 1),
        "not what is drawn from the traces": text.replace(picture, redrawn, 1),
        "player: ": text.replace("other - one", "one - other", 1),
        "its sections are not those": text.replace("</main>", '<h2 id="section-99">More</h2></main>'),
    }
    file = tmp_path / "report.html"
    for fault, changed in changes.items():
        assert changed != text, fault
        file.write_text(changed, "utf-8")
        code, said = verified(capsys, file, paths)
        assert code == 1, fault
        assert fault in said.out
    file.write_text(text.replace('"drawn_with":"matplotlib ', '"drawn_with":"matplotlib 1.'), "utf-8")
    code, said = verified(capsys, file, paths)
    assert code == 0, said
    assert "figures were drawn with matplotlib 1." in said.out
    file.write_text(text, "utf-8")
    code, said = verified(capsys, file, paths[:1])
    assert code == 1
    assert "is not among the traces given" in said.out


@pytest.mark.slow
def test_a_report_that_cannot_be_read_is_refused_in_a_line(two_runs, tmp_path, capsys):
    paths, text = two_runs
    file = tmp_path / "report.html"
    file.write_text(text.replace('{"made_with"', '{"made_by"', 1), "utf-8")
    code, said = verified(capsys, file, paths)
    assert code == 2
    assert said.err.count("\n") == 1
