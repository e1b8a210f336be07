"""`tracereel render`: everything side by side, only what is stale, joined without encoding again."""

import subprocess
import sys
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest
from PIL import Image
from tracereel.cli import render
from tracereel.cli.main import main
from tracereel.film.ledger import encode_ledger, ledger_path, read_ledger
from tracereel.film.provenance import read_stamp
from tracereel.film.registry import CONTINUOUS_BATCHING, class_name, registered
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import FILMS, storyboard
from tracereel.film.verification import verify
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import ENVIRONMENT


@pytest.fixture
def two_cases(tmp_path, film_recordings, monkeypatch):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in ("continuous-1", "static-1"):
        (folder / f"{name}.jsonl.zst").write_bytes((film_recordings / f"{name}.jsonl.zst").read_bytes())
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return folder


def made(capsys, *arguments):
    assert main(("render", *arguments)) == 0
    return capsys.readouterr().out.splitlines()


def told_by(name):
    """The beats that the recordings can tell of a scene or a film; none where they lack a case that it needs."""
    try:
        return storyboard(name, Show(Settings.from_environment({}), (256, 144)))
    except (TraceError, NotComparableError):
        return []


def scenes_told():
    return {scene.name for scene in registered() if told_by(scene.name)}


def chapters_in(film):
    with av.open(str(film)) as container:
        return [chapter["metadata"]["title"] for chapter in container.chapters()]


def pictures_in(film):
    with av.open(str(film)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def test_the_command_names_the_scenes_without_importing_manim():
    code = "import sys, tracereel.cli.render; sys.exit('manim' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.long
def test_everything_is_rendered_once_and_joined(two_cases, tmp_path, capsys):
    options = ("--all", "--fps", "1", "--jobs", "2", "--size", "256x144", "--media", str(tmp_path / "media"), "--sound")
    assert main(("render", *options)) == 0
    out, err = capsys.readouterr()
    films, left_out = out.splitlines(), [line for line in err.splitlines() if line.startswith("left out: ")]
    for name, why in (
        ("same_position", "no recording of the case 'same-position'"),
        ("chunked_prefill", "no recording of the case 'unchunked'"),
        ("batch_size_sweep", "a sweep needs continuous runs of two numbers of slots"),
    ):
        assert any(name in line and why in line for line in left_out), left_out
    videos = tmp_path / "media" / "videos"
    scenes = {name: videos / name / "144p1" / f"{class_name(name)}.mp4" for name in scenes_told()}
    joined = {name: videos / name / "144p1" / f"{class_name(name)}.mp4" for name in FILMS}
    assert len(scenes) >= 10, "two recordings tell most scenes"
    assert sorted(films[: -len(FILMS)]) == sorted(map(str, scenes.values()))
    assert films[-len(FILMS) :] == list(map(str, joined.values()))
    for name, path in joined.items():
        verdict = verify(path, [two_cases])
        assert verdict.claims
        assert not verdict.faults, verdict.faults[:3]
        beats = told_by(name)
        assert len(beats) >= 4
        assert chapters_in(path) == [beat.title.text for beat in beats]
        assert pictures_in(path) == sum(pictures_in(scenes[beat.name]) for beat in beats)
    film = joined[CONTINUOUS_BATCHING]
    with av.open(str(film)) as container:
        assert len(container.streams.audio) == 1
    for suffix in (".srt", ".vtt", ".chapters.vtt"):
        assert film.with_suffix(suffix).read_text().count("-->") >= 4
    times = {path: path.stat().st_mtime_ns for path in film.parents[2].rglob("*.mp4")}
    made(capsys, *options)
    assert {path: path.stat().st_mtime_ns for path in film.parents[2].rglob("*.mp4")} == times, "all was there already"
    ledger_path(film.parents[2] / "latency" / "144p1" / "Latency.mp4").unlink()
    made(capsys, *options)
    rendered_again = {
        path.name for path in film.parents[2].rglob("*.mp4") if times.get(path) != path.stat().st_mtime_ns
    }
    assert "Latency.mp4" in rendered_again
    assert "PipelineFlow.mp4" not in rendered_again


@pytest.mark.slow
def test_shares_of_the_scenes_are_disjoint_and_whole(two_cases, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(render, "_work_off", lambda names, *rest: None)
    shares = [made(capsys, "--part", f"{k}/3", "--media", str(tmp_path)) for k in (1, 2, 3)]
    together = [name for share in shares for name in share]
    assert len(together) == len(set(together)) == len(scenes_told())
    assert all(shares)


@pytest.mark.slow
def test_a_transparent_film_has_an_alpha_channel(two_cases, tmp_path, capsys):
    options = ("latency", "--fps", "1", "--size", "256x144", "--media", str(tmp_path), "--transparent")
    with av.open(made(capsys, *options)[-1]) as container:
        frame = next(container.decode(video=0))
        assert frame.to_ndarray(format="rgba")[..., 3].min() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "suffix", "size"),
    [
        (("--format", "webm", "--size", "256x144"), ".webm", (256, 144)),
        (("--format", "gif", "--size", "256x144"), ".gif", (256, 144)),
        (("--quality", "k"), ".mp4", (3840, 2160)),
    ],
)
def test_every_format_and_the_largest_size_can_be_verified(two_cases, tmp_path, capsys, options, suffix, size):
    film = Path(made(capsys, "opening", "--fps", "1", "--media", str(tmp_path), *options)[-1])
    assert film.suffix == suffix
    verdict = verify(film, [two_cases])
    assert verdict.claims
    assert not verdict.faults, verdict.faults[:3]
    with av.open(str(film)) as container:
        pictures = [frame.to_image() for frame in container.decode(video=0)]
    assert pictures[0].size == size
    # The card has come: letters on the ground, in the upper half as in any other film of it.
    still = Image.open(film.with_suffix(".png")).convert("L").resize((64, 36))
    seen = pictures[-2].convert("L").resize((64, 36))
    assert np.abs(np.asarray(still, float) - np.asarray(seen, float)).mean() < 6


@pytest.mark.slow
def test_a_clip_is_held_to_its_traces(two_cases, tmp_path, capsys):
    film = made(capsys, "latency", "--fps", "4", "--size", "256x144", "--media", str(tmp_path))[-1]
    gif = tmp_path / "clip.gif"
    assert main(("clip", film, str(gif), "--from", "3", "--to", "8", "--fps", "2", "--width", "128")) == 0
    verdict = verify(gif, [two_cases])
    assert verdict.claims
    assert not verdict.faults, verdict.faults[:3]
    with Image.open(gif) as picture:
        assert picture.size == (128, 72)
        assert 5 <= picture.n_frames <= 10  # frames that are alike are one that stands longer
    ledger, _ = read_ledger(gif)
    assert ledger.frames == 10
    shorter = [msgspec.structs.replace(claim, last=min(claim.last, 8)) for claim in ledger.claims]
    ledger_path(gif).write_bytes(encode_ledger(msgspec.structs.replace(ledger, claims=shorter)))
    faults = verify(gif, [two_cases]).faults
    assert faults[0] == "clip.gif.ledger.jsonl.zst is not the ledger this film was rendered with"
    assert any("the ledger says frames" in fault and "it is shown in" in fault for fault in faults[1:])
    assert main(("clip", film, str(gif), "--fps", "5")) == 2
    assert "has 4 frames a second" in capsys.readouterr().err
    assert main(("clip", film, str(tmp_path / "clip.png"))) == 2
    assert "a clip is a .gif" in capsys.readouterr().err


@pytest.mark.slow
def test_a_film_says_of_itself_what_it_was_rendered_from(two_cases, tmp_path, capsys):
    film = made(capsys, "opening", "--fps", "1", "--size", "256x144", "--media", str(tmp_path))[-1]
    assert len(read_stamp(Path(film))["traces"].split()) == 1
    still = Path(film).with_suffix(".png").read_bytes()
    assert int.from_bytes(still[16:20]) == 256
    assert int.from_bytes(still[20:24]) == 144


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "ours"), [((), True), (("--preset", "superfast"), False)])
def test_what_drawn_pictures_do_not_need_is_left_out_where_no_preset_is_asked_for(
    two_cases, tmp_path, asked, ours, capsys
):
    options = ("opening", "--fps", "1", "--size", "256x144", "--media", str(tmp_path), *asked)
    encoded = Path(made(capsys, *options)[-1]).read_bytes()  # x264 writes into a film how it made it
    assert all((b" " + setting + b" " in encoded) is ours for setting in (b"deblock=0:0:0", b"subme=0", b"8x8dct=0"))


@pytest.mark.slow
def test_the_example_of_the_guide_runs_and_verifies(two_cases, tmp_path):
    import re
    import subprocess
    import sys

    guide = (Path(__file__).resolve().parents[1] / "docs" / "scenes.md").read_text()
    code = re.search(r"```python\n(.*?)```", guide, re.S)[1]
    assert len(code.splitlines()) <= 32
    (tmp_path / "running.py").write_text(code)
    command = [sys.executable, "-m", "manim", "-ql", "--fps", "1", "--progress_bar", "none", "running.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (film,) = tmp_path.rglob("Running.mp4")
    assert "cannot be made again" in verify(film, [two_cases]).faults[0], "without the scene's file"
    command = [sys.executable, "-m", "tracereel.cli.main", "verify", "--scene", "running.py", str(film)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 fault(s)" in done.stdout


def test_the_guides_brand_file_is_one(tmp_path):
    import re

    from tracereel.film.settings import read_brand

    guide = (Path(__file__).resolve().parents[1] / "docs" / "scenes.md").read_text()
    (tmp_path / "brand.toml").write_text(re.search(r"```toml\n(.*?)```", guide, re.S)[1])
    for name in ("logo.png", "NotoSansCJK-Regular.ttc"):
        (tmp_path / name).write_bytes(b"")
    brand = read_brand(tmp_path / "brand.toml")
    assert brand.url == "https://our.example/film"
