"""One writer, one file: whoever writes, what stands under a name is whole, and what was there before is not lost."""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import fakes
import pytest
import zstandard
from tracereel.engine.config import EngineConfig
from tracereel.engine.request import Request, SamplingParams
from tracereel.trace.check.invariants import check
from tracereel.trace.format import recorder as recorder_module
from tracereel.trace.format.atomic import replacing
from tracereel.trace.format.events import Arrival
from tracereel.trace.format.locks import Lock, LockedError
from tracereel.trace.format.recorder import Recorder, RecordingError
from tracereel.trace.format.storage import LineReader, LineWriter, TraceError, replace_text
from tracereel.trace.state.columns import Trace


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_two_writers_of_one_name_each_write_their_own_and_the_last_is_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    with LineWriter(path) as one, LineWriter(path) as other:
        one.write(b"one\n" * 50_000)
        other.write(b"other\n" * 50_000)
        assert one.partial != other.partial
    assert set(path.read_bytes().split()) in ({b"one"}, {b"other"})
    assert names(tmp_path) == {"a.jsonl"}


def write_half(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError


def write_half_of_the_lines(path: Path) -> None:
    with LineWriter(path) as writer:
        writer.write(b"half\n")
        raise ZeroDivisionError


@pytest.mark.parametrize("write", [write_half, write_half_of_the_lines])
def test_after_an_exception_what_was_there_is_as_it_was(tmp_path, write):
    path = tmp_path / "a.png"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError):
        write(path)
    assert path.read_text() == "before"
    assert names(tmp_path) == {"a.png"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_names_the_target_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text("before")

    def write() -> None:
        with replacing(path), open("/dev/full", "w") as full:
            full.write("x")
            full.flush()

    with pytest.raises(OSError, match="No space left") as raised:
        write()
    assert raised.value.filename == str(path)
    assert path.read_text() == "before"
    assert names(tmp_path) == {"a.srt"}


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (("pipe", "not a regular file"), ("folder", "is a folder")):
        for write in (lambda path: replace_text(path, "x"), LineWriter):
            with pytest.raises(OSError, match=why):
                write(tmp_path / name)
    with pytest.raises(RecordingError, match="not a regular file"):
        Recorder(tmp_path / "pipe", fakes.header(EngineConfig()))
    assert names(tmp_path) == {"pipe", "folder"}


def test_a_link_stays_and_the_file_it_names_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("before")
    (tmp_path / "a.txt").symlink_to(tmp_path / "real" / "a.txt")
    replace_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "after"


def test_a_pipe_as_a_trace_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="not a regular file"):
        Trace.read(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\x1f\x8b\x08\x00 and so on", "is gzip data"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer")],
)
def test_a_trace_in_another_wrapping_is_refused_for_what_it_is(tmp_path, content, why):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=why):
        list(LineReader(path))


def test_a_lock_names_its_holder_and_falls_with_its_process(tmp_path):
    target = tmp_path / "run.jsonl"
    script = f"""
        import sys, time
        from pathlib import Path
        from tracereel.trace.format.locks import Lock
        lock = Lock(Path({str(target)!r}))
        print("held", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockedError, match=f"process {holder.pid} on {socket.gethostname()}"):
            Lock(target)
        holder.send_signal(signal.SIGKILL)
    assert ".run.jsonl.lock" in names(tmp_path)  # stale: it locks nothing
    with Lock(target), pytest.raises(LockedError, match=f"process {os.getpid()} "):
        Lock(target)
    assert names(tmp_path) == set()


def test_where_no_lock_file_can_be_made_the_target_is_named(tmp_path):
    (tmp_path / ".run.jsonl.lock").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        Lock(tmp_path / "run.jsonl")
    assert raised.value.filename == str(tmp_path / "run.jsonl")


def test_where_a_file_system_knows_no_locks_the_file_says_who_holds_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tracereel.trace.format.locks.fcntl", None)
    target = tmp_path / "run.jsonl"
    with Lock(target), pytest.raises(LockedError):
        Lock(target)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".run.jsonl.lock").write_text(f"{dead.pid} {socket.gethostname()}\n")
    Lock(target).release()
    (tmp_path / ".run.jsonl.lock").write_text("1 another-host\n")
    with pytest.raises(LockedError, match="process 1 on another-host"):
        Lock(target)


def _hold_and_sleep(target: Path, told: str) -> None:
    with Lock(target):
        if os.fork() == 0:
            Path(told).write_text("forked")
            time.sleep(20)
            os._exit(0)
        time.sleep(20)


@pytest.mark.slow
def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path):
    target, told = tmp_path / "run.jsonl", tmp_path / "told"
    parent = multiprocessing.get_context("spawn").Process(target=_hold_and_sleep, args=(target, str(told)))
    parent.start()
    while not told.exists():
        time.sleep(0.05)
    parent.kill()
    parent.join()
    Lock(target).release()


def record_some(recorder: Recorder, first: int, last: int) -> None:
    engine = fakes.make_engine(EngineConfig(), recorder)
    for i in range(first, last):
        engine.add(Request(f"r{i}", (1, 2, 3), SamplingParams(max_tokens=4)))
    while engine.has_work:
        engine.step()


def test_a_second_recorder_of_a_file_is_refused_and_the_first_is_whole(tmp_path):
    path = tmp_path / "run.jsonl.zst"
    with Recorder(path, fakes.header(EngineConfig())) as recorder:
        with pytest.raises(RecordingError, match=f"process {os.getpid()} .* is writing it"):
            Recorder(path, fakes.header(EngineConfig()))
        record_some(recorder, 0, 3)
    assert check(path).ok
    assert names(tmp_path) == {"run.jsonl.zst"}


@pytest.mark.parametrize("on_fault", ["continue", "stop"])
def test_a_disk_that_hangs_does_not_hang_the_engine_for_good(tmp_path, monkeypatch, caplog, on_fault):
    path, goes_on = tmp_path / "run.jsonl", threading.Event()
    write = LineWriter.write
    monkeypatch.setattr(LineWriter, "write", lambda self, lines: (goes_on.wait(30), write(self, lines)))
    monkeypatch.setattr(recorder_module, "STUCK_SECONDS", 0.05)
    recorder = Recorder(path, fakes.header(EngineConfig()), capacity=4, on_fault=on_fault)
    arrivals = [
        Arrival(request=number, id=f"r{number}", arrival_ns=0, submitted_ns=0, prompt_tokens=3, max_tokens=4)
        for number in range(200)
    ]
    begun = time.monotonic()
    stopped = (
        contextlib.nullcontext() if on_fault == "continue" else pytest.raises(RecordingError, match="taken nothing")
    )
    with stopped:
        for arrival in arrivals:
            recorder.record(arrival)
    with pytest.raises(RecordingError, match=r"its file has taken nothing for 0\.05 s"):
        recorder.close()
    assert time.monotonic() - begun < 10
    assert recorder._events.qsize() < 100  # nor does what waits grow
    assert caplog.text.count("goes on unrecorded") == (on_fault == "continue")
    goes_on.set()
    recorder._thread.join()
    assert not path.exists()


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.zst"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_changes_nothing_and_does_not_hang(tmp_path, name):
    path = tmp_path / name
    engine_header = fakes.header(EngineConfig())
    with Recorder(path, engine_header, capacity=4) as recorder:
        engine = fakes.make_engine(EngineConfig(), recorder)
        for i in range(8):
            engine.add(Request(f"r{i}", (1, 2, 3), SamplingParams(max_tokens=4)))
        for _ in range(3):
            engine.step()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with recorder:
                while engine.has_work:
                    engine.step()
            recorder.close()
            recorder.abandon()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        while engine.has_work:
            engine.step()
    assert check(path).ok
    assert names(tmp_path) == {name}


def test_a_small_file_that_expands_without_end_is_refused_early(tmp_path):
    header = lines_of_a_run(tmp_path)[0]
    step = b'{"event":"step","index":0,"start_ns":1,"end_ns":2,"phases":"","waiting":0,"requests":[' + b"0," * 2**23
    path = tmp_path / "bomb.jsonl.zst"
    pack = zstandard.ZstdCompressor(level=3).compressobj()
    path.write_bytes(b"".join(map(pack.compress, [header, *[step + b"0]}\n"] * 12])) + pack.flush())
    assert path.stat().st_size < 2**18
    with pytest.raises(TraceError, match="expands more than 250 times"):
        for _ in LineReader(path):
            pass


def lines_of_a_run(folder: Path) -> list[bytes]:
    path = folder / "run.jsonl"
    with Recorder(path, fakes.header(EngineConfig())) as recorder:
        record_some(recorder, 0, 1)
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("kind", ["OSError", "av"])
def test_a_fault_within_a_library_names_the_file_that_was_meant(tmp_path, kind):
    import av

    error = av.error.OSError if kind == "av" else OSError  # the former cannot be given another name
    target = tmp_path / "film.mp4"

    def fail() -> None:
        with replacing(target) as part:
            raise error(28, "No space left on device", str(part))

    with pytest.raises(OSError, match="No space") as raised:
        fail()
    assert raised.value.filename == str(target)
    assert names(tmp_path) == set()


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path):
    LineWriter(tmp_path / "run.jsonl").abandon()
    assert names(tmp_path) == set()
    writer = LineWriter(tmp_path / "run.jsonl")
    writer.write(b"{}\n")
    writer.abandon()
    assert names(tmp_path) == {writer.partial.name}


def test_a_recording_whose_writer_was_ended_before_the_move_is_not_whole(small_trace, tmp_path, capsys):
    from tracereel.cli.main import main

    left = tmp_path / "run.3f9c21aa.jsonl.partial"
    left.write_bytes(small_trace.read_bytes())
    why = "its name ends in .partial, so its writer was ended before it was done"
    trace = Trace.read(left)
    assert trace.cut == why
    assert len(trace.steps) == len(Trace.read(small_trace).steps)
    assert main(["check", str(tmp_path)]) == 1
    assert why in capsys.readouterr().out
    left.rename(tmp_path / "run.jsonl")
    assert main(["check", str(tmp_path)]) == 0


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.zst"])
def test_a_disk_that_is_full_at_the_very_end_leaves_what_was_there(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"what was there\n")
    recorder = Recorder(path, fakes.header(EngineConfig()))
    record_some(recorder, 0, 3)
    real = LineWriter._drain

    def full_at_the_end(writer: LineWriter) -> None:
        if not writer._file.closed and recorder._closed:
            raise OSError(28, "No space left on device")
        real(writer)

    monkeypatch.setattr(LineWriter, "_drain", full_at_the_end)
    with pytest.raises(RecordingError, match="No space left on device"):
        recorder.close()
    assert path.read_bytes() == b"what was there\n"
