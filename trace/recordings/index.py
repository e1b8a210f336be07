"""Where recordings are and which to play: finds trace files by what their headers say, not by their names.

Knows folders, headers, suites and cases. Does not know what a scene will do with them.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracereel.trace.format.decoding import MalformedRecordError, decode_record
from tracereel.trace.format.events import DeviceInfo, End, Header
from tracereel.trace.format.storage import LineReader, TraceError
from tracereel.trace.state.columns import Trace

PACKAGE_RECORDINGS = Path(__file__).resolve().parent
ENVIRONMENT = "TRACEREEL_RECORDINGS"
DEVICE_ENVIRONMENT = "TRACEREEL_DEVICE"
FILM = "film"
"""The suite that is played where no other is asked for."""
ENGINES = "-engines"
"""How the name of a suite ends whose recordings are of several engines side by side."""
SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.partial", ".jsonl.zst.partial")


def device_folder(device: DeviceInfo) -> str:
    """The folder name of a device's recordings: `cpu`, or the accelerator's own name."""
    if device.kind == "cpu":
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-") or device.kind


def traces_below(folder: Path) -> list[Path]:
    """The trace files in and below a folder, by name; hidden folders hold unfinished work and are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_header(path: Path) -> Header:
    """The header of a trace file. Raises TraceError where there is none."""
    for number, line in LineReader(path):
        try:
            event = decode_record(line)
        except MalformedRecordError as error:
            raise TraceError(path, str(error), number) from None
        if not isinstance(event, Header):
            raise TraceError(path, "the first record is not a header", number)
        return event
    raise TraceError(path, "the file holds no header record; is it a trace?")


def read_digest(path: Path) -> str:
    """The digest of a trace file, as `Trace.digest`, without its columns. Raises TraceError where it cannot be read."""
    reader, last = LineReader(path), b""
    for _, line in reader:
        last = line
    try:
        ended = isinstance(decode_record(last), End)
    except MalformedRecordError:
        ended = False
    return reader.digest if ended else reader.digest_all


@dataclass(frozen=True)
class Recording:
    """A trace file and its header; `case` is the suite's name for it, or its policy where it belongs to none."""

    path: Path
    header: Header

    @property
    def case(self) -> str:
        """What this run shows."""
        return self.header.run.case if self.header.run else self.header.policy

    @property
    def suite(self) -> str | None:
        """The suite this run belongs to."""
        return self.header.run.suite if self.header.run else None

    def read(self, *, allow_broken: bool = False) -> Trace:
        """The whole trace. Raises TraceError as `Trace.read` does."""
        return Trace.read(self.path, allow_broken=allow_broken)


class RecordingIndex:
    """The recordings of one suite in a folder, those of one device where the package has several.

    `folder` defaults to $TRACEREEL_RECORDINGS, then to the package's own recordings of the suite; there an
    accelerator's come before the CPU's. `device` (default: $TRACEREEL_DEVICE) leaves those of one device: `cpu`,
    `cuda`, or a device's own name as `device_folder` spells it. A folder may hold several suites' recordings; one that
    holds a single other suite, such as one's own, or traces of no suite, is played as it is. Raises TraceError where
    there is none to play.
    """

    def __init__(self, folder: Path | None = None, suite: str = FILM, device: str | None = None):
        named = os.environ.get(ENVIRONMENT)
        device = device or os.environ.get(DEVICE_ENVIRONMENT)
        self.folder = folder or (Path(named) if named else _own_recordings(suite, device))
        files = [self.folder] if self.folder.is_file() else traces_below(self.folder)
        there = tuple(Recording(path, read_header(path)) for path in files)
        if not there:
            raise TraceError(
                self.folder, f"holds no trace (.jsonl or .jsonl.zst); record one with `{_how_to_record(suite)}`"
            )
        if device:
            there = _made_on(device, there, self.folder)
        suites = {recording.suite for recording in there}
        if suite not in suites and len(suites) > 1:
            others = ", ".join(sorted(name or "none" for name in suites))
            raise TraceError(
                self.folder,
                f"no recording of the suite {suite!r}; there are those of: {others}; record one with"
                f" `{_how_to_record(suite)}`",
            )
        self.recordings = tuple(recording for recording in there if suite not in suites or recording.suite == suite)

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> "RecordingIndex":
        """The index of just these recordings, in this order; at least one."""
        index = cls.__new__(cls)
        index.folder, index.recordings = recordings[0].path.parent, tuple(recordings)
        return index

    def case(self, name: str) -> tuple[Recording, ...]:
        """All repeats of a case. Raises TraceError that lists the cases there are."""
        found = tuple(recording for recording in self.recordings if recording.case == name)
        if not found:
            there = ", ".join(sorted({recording.case for recording in self.recordings}))
            raise TraceError(self.folder, f"no recording of the case {name!r}; there are: {there}")
        return found

    def preferred(self, *names: str) -> str:
        """The first of these cases that there is; the first recording's where there is none of them."""
        return next(filter(self.has, names), self.recordings[0].case)

    def has(self, name: str) -> bool:
        """Is there a recording of that case?"""
        return any(recording.case == name for recording in self.recordings)


def _how_to_record(suite: str) -> str:
    """The command that makes a suite's recordings."""
    if suite.endswith(ENGINES):
        return f"tracereel record --engine tracereel,vllm,transformers --suite {suite.removesuffix(ENGINES)}"
    return "tracereel record" if suite == FILM else f"tracereel record --suite {suite}"


def _own_recordings(suite: str, device: str | None) -> Path:
    folder = PACKAGE_RECORDINGS / suite
    devices = sorted(path for path in folder.glob("*") if path.is_dir())
    accelerators = [path for path in devices if path.name != "cpu"]
    return folder if device else (accelerators or devices or [folder])[0]


def _made_on(device: str, recordings: tuple[Recording, ...], folder: Path) -> tuple[Recording, ...]:
    made_on = [(recording, recording.header.device) for recording in recordings]
    found = tuple(recording for recording, its in made_on if device in (its.kind, device_folder(its)))
    if not found:
        there = ", ".join(sorted({device_folder(its) for _, its in made_on}))
        raise TraceError(folder, f"no recording was made on {device!r}; there are those of: {there}")
    return found
