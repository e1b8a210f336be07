"""A film is made aside: one that was there before stays whole until the new one is, whatever happens meanwhile."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from tracereel.cli.main import main
from tracereel.film.ledger import (
    MAX_FILE_BYTES,
    MAX_LEDGER_BYTES,
    Claim,
    LedgerError,
    LedgerFile,
    encode_ledger,
    ledger_path,
    read_ledger,
)
from tracereel.film.phrases import FORMATS, shown_as
from tracereel.film.staging import staged
from tracereel.trace.format.locks import Lock, LockedError


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def make(target: Path, what: str, fail: BaseException | None = None) -> None:
    with staged(target) as folder:
        (folder / target.name).write_text(what)
        (folder / "sub").mkdir()
        (folder / f"{target.name}.ledger.jsonl.zst").write_text(what)
        if fail is not None:
            raise fail


@pytest.mark.parametrize("name", ["plain", "it's mine", "brace{d}s", "open{", "日本"])
def test_all_files_take_their_places_and_the_path_to_make_them_in_is_plain(tmp_path, name):
    target = tmp_path / name / "Film.mp4"
    make(target, "new")
    assert contents(target.parent) == {"Film.mp4": "new", "Film.mp4.ledger.jsonl.zst": "new"}
    with staged(target) as folder:
        assert not set("'{}日") & set(str(folder))


def of_av() -> OSError:
    """An error of PyAV's that is the system's; its name cannot be set."""
    import av

    return av.error.OSError(28, "No space left on device", "a name")


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), of_av(), KeyboardInterrupt(), ValueError()])
def test_whatever_fails_the_film_that_was_there_is_whole(tmp_path, fault):
    target = tmp_path / "Film.mp4"
    make(target, "before")
    with pytest.raises(type(fault)):
        make(target, "new", fault)
    assert contents(tmp_path) == {"Film.mp4": "before", "Film.mp4.ledger.jsonl.zst": "before"}


def test_a_fault_names_the_film_and_not_the_folder_it_is_made_in(tmp_path):
    target = tmp_path / "it's" / "Film.mp4"

    import av

    def fail(kind: type[OSError]) -> None:
        with staged(target) as folder:
            raise kind(28, "No space left on device", str(folder / "Film.mp4"))

    for kind in (OSError, av.error.OSError):
        with pytest.raises(OSError, match="No space") as raised:
            fail(kind)
        assert raised.value.filename == str(target)


def test_a_full_disk_is_one_also_where_the_encoder_wraps_it(tmp_path):
    def fail(cause: Exception) -> None:
        with staged(tmp_path / "Film.mp4"):
            raise RuntimeError("Failed to finish video segment") from cause

    with pytest.raises(OSError, match="No space") as raised:
        fail(OSError(28, "No space left on device", "uncached_00000.mp4"))
    assert raised.value.filename == str(tmp_path / "Film.mp4")
    with pytest.raises(RuntimeError, match="Failed to finish"):
        fail(ValueError("another reason"))


def test_a_second_maker_of_the_same_film_is_refused_by_name(tmp_path):
    with staged(tmp_path / "Film.mp4"), pytest.raises(LockedError, match=f"Film.mp4: process {os.getpid()} on "):
        make(tmp_path / "Film.mp4", "second")


def _make_for_ever(target: Path) -> None:
    with staged(target) as folder:
        (folder / target.name).write_text("half")
        time.sleep(60)


@pytest.mark.slow
def test_what_a_killed_process_left_goes_with_the_next_film(tmp_path):
    target = tmp_path / "Film.mp4"
    maker = multiprocessing.get_context("spawn").Process(target=_make_for_ever, args=(target,))
    maker.start()
    while not list(tmp_path.glob(".Film.*.making/Film.mp4")):
        time.sleep(0.05)
    maker.kill()
    maker.join()
    make(target, "whole")
    assert contents(tmp_path) == {"Film.mp4": "whole", "Film.mp4.ledger.jsonl.zst": "whole"}


WORKERS = """
import os, sys, time
from multiprocessing import get_context
from tracereel.cli import render
def work(name, settings, options, job):
    open(os.path.join(options["folder"], str(os.getpid())), "w").close()
    time.sleep(120)
render._work = work
if __name__ == "__main__":
    from tracereel.cli.main import main
    render.run = lambda args: render._work_off({"a": "", "b": ""}, None, {"folder": sys.argv[1]}, 2)
    sys.exit(main(["render"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_workers_end_with_their_parent(tmp_path, number, code):
    (tmp_path / "pids").mkdir()
    (tmp_path / "render_workers.py").write_text(WORKERS)
    command = [sys.executable, str(tmp_path / "render_workers.py"), str(tmp_path / "pids")]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(pids := list((tmp_path / "pids").iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(number)
    assert parent.wait(20) == code
    assert "Traceback" not in parent.stderr.read()
    by = time.monotonic() + 10
    while any(Path("/proc", path.name).exists() for path in pids):
        assert time.monotonic() < by, "a worker outlived its parent"
        time.sleep(0.05)


HEAD = b'{"film":"f.mp4","frames":9,"frame_rate":2.0,"provenance":{"job":"x"},"clock":[]}'
CLAIM = {"first": 1, "last": 2, "text": "waiting 7", "shown": "7", "style": "d", "query": "waiting", "value": 7}


def test_a_ledger_is_bounded_before_it_is_read(tmp_path):
    film = tmp_path / "f.mp4"
    with ledger_path(film).open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(LedgerError, match="over 8 MiB"):
        read_ledger(film)
    packed = zstandard.ZstdCompressor().compress(b" " * (MAX_LEDGER_BYTES + 1))
    assert len(packed) < 2**16
    for data, why in (
        (packed, "over 64 MiB unpacked"),
        (packed[: len(packed) // 2], "line 1"),
        (b'{"film":"f"}', "no zstd data"),
        (zstandard.compress(b'{"film":"f","x":' + b"[" * 100_000), "line 1"),
        (zstandard.compress(HEAD + b'\n{"first":"a"}\n'), "line 2"),
        *((zstandard.compress(HEAD.replace(b"2.0", rate)), "line 1: frame_rate") for rate in (b"0.0", b"-1", b"1e300")),
        *((zstandard.compress(HEAD.replace(b"9", count)), "line 1: frames") for count in (b"-1", b"1" + b"0" * 15)),
    ):
        ledger_path(film).write_bytes(data)
        with pytest.raises(LedgerError, match=why):
            read_ledger(film)


def test_a_ledger_is_read_as_it_was_written_and_printed_a_claim_a_line(tmp_path, capsys):
    film, claim = tmp_path / "f.mp4", dict(CLAIM, args={"t_ns": 5}, traces=("a" * 64,), lines=(2, 3))
    ledger = LedgerFile(film="f.mp4", frames=9, frame_rate=2.0, provenance={"job": "x"}, claims=[Claim(**claim)])
    ledger_path(film).write_bytes(encode_ledger(ledger))
    assert read_ledger(film) == (ledger, ledger_path(film).read_bytes())
    assert main(["ledger", str(film)]) == 0
    head, line = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert head == json.loads(HEAD)
    assert line == {**claim, "traces": ["a" * 64], "lines": [2, 3]}


@pytest.mark.parametrize("style", ["999999999d", "0>999999999", ".999999999f", "x", "{}", ",,d"])
def test_a_format_is_one_of_a_fixed_list(style):
    with pytest.raises(ValueError, match="no format"):
        shown_as(1, style)
    assert style not in FORMATS


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--fps", "0"],
        ["--fps", "-5"],
        ["--fps", "nan"],
        ["--fps", "1e9"],
        ["--preset", "bogus"],
        ["--crf", "900"],
        ["--crf", "x"],
        ["--jobs", "0"],
        ["--jobs", "99999999999999999999"],
    ],
    ids=" ".join,
)
def test_an_option_out_of_its_bounds_is_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(["render", "opening", *arguments])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"argument {arguments[0]}: " in err


@pytest.mark.slow
def test_no_manim_cfg_changes_a_film(tmp_path, monkeypatch):
    from manim import config, tempconfig
    from tracereel.scenes.film_scene import configured

    with tempconfig({"output_file": "mine", "dry_run": True, "from_animation_number": 3, "frame_rate": 7.0}):
        with configured({"frame_rate": 15.0, "pixel_width": 854, "pixel_height": 480}):
            assert (config.dry_run, config.from_animation_number, config.frame_rate) == (False, 0, 15.0)
            assert (config.pixel_width, config.pixel_height) == (854, 480)
            assert not config.output_file
        assert config.output_file == "mine"
        assert config.from_animation_number == 3


def manim_command(folder: Path) -> list[str]:
    scene = Path(__file__).parents[1] / "scenes" / "opening.py"
    command = [sys.executable, "-m", "manim", "-ql", "--fps", "1", "--progress_bar", "none", str(scene)]
    return [*command, "--media_dir", str(folder)]


def manim(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(manim_command(folder), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_manim_alone_says_what_a_film_takes_and_makes_none_that_another_process_makes(tmp_path):
    done = manim(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    (film,) = tmp_path.rglob("Opening.mp4")
    ledger, _ = read_ledger(film)
    assert re.search(rf"INFO {ledger.frames} frames, \d+ s of film; to draw ", said), said
    assert str(film) in "".join((done.stdout + done.stderr).split()), "it says where the film is"
    assert not list(tmp_path.rglob("*.lock"))
    assert not list(tmp_path.rglob("*.making"))
    before = film.stat().st_mtime_ns
    with Lock(film):
        second = manim(tmp_path)
    assert second.returncode == 2
    assert f"process {os.getpid()} on" in second.stderr
    assert film.stat().st_mtime_ns == before
    killed_while_it_joins(film, manim_command(tmp_path))


def killed_while_it_joins(film: Path, command: list[str]) -> None:
    """A run that is killed when it has begun to join the film leaves all files of the earlier one as they were."""
    names = [film, *film.parent.glob(f"{film.stem}.*")]
    before = {path: path.read_bytes() for path in names}
    maker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(film.parent.glob(f".{film.stem}.*.making/{film.name}")):
        assert maker.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    maker.kill()
    maker.wait()
    assert {path: path.read_bytes() for path in names} == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB in memory, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.long
def test_a_disk_that_is_full_under_manim_leaves_the_earlier_film_whole(small_disk, monkeypatch):
    assert manim(small_disk).returncode == 0
    (film,) = small_disk.rglob("Opening.mp4")
    files = [path for path in film.parent.iterdir() if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert len(before) > 4, "the film and what goes with it"
    monkeypatch.setenv("TRACEREEL_THEME", "light")
    for room in (0, 20_000):  # for no picture, and for pictures but not for the film that joins them
        with (small_disk / "filler").open("wb") as filler:
            filler.truncate(0)
            stat = os.statvfs(small_disk)
            filler.write(bytes(stat.f_bavail * stat.f_frsize - room))
        done = manim(small_disk)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("tracereel: [Errno 28] No space left on device")
        assert "Traceback" not in done.stdout + done.stderr
        assert {path: path.read_bytes() for path in film.parent.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_another_renderer_is_refused_in_one_line(tmp_path):
    scene = Path(__file__).parents[1] / "scenes" / "opening.py"
    command = [sys.executable, "-m", "manim", "-ql", str(scene), "--media_dir", str(tmp_path), "--renderer=opengl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "tracereel: renderer opengl: scenes are painted by Cairo alone" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
