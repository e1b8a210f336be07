"""Say what this machine can do: record, render, analyse; and what to do about each thing that it cannot.

Looks at versions, devices and dtypes, memory and disk, the model in the cache, fonts, encoders and openers. Exit code
0: all that is installed works; 1: something that is installed does not.
"""

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

OK, ABSENT, PROBLEM = "ok", "absent", "problem"
_MARKS = {OK: ("✓", "green"), ABSENT: ("–", "dim"), PROBLEM: ("✗", "red")}
NEEDED_BYTES = 2 * 2**30
"""Memory that recording with the default model takes, with room for the rest."""
FILM_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is, how it is, and what to do where it is not well."""

    subject: str
    state: str
    says: str
    remedy: str | None = None


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a list")


def run(args: argparse.Namespace) -> int:
    """Look at everything and say what was found."""
    from tracereel.cli.terminal import Terminal, printable, say_json

    found: list[Finding] = []
    console = Terminal(soft_wrap=True)
    for look in (_python, _packages, _memory, _disk, _devices, _model, _recordings, _fonts, _encoder, _opener, _plots):
        for finding in _guarded(look):
            found.append(finding)
            if args.json:
                say_json(finding)
                continue
            mark, style = _MARKS[finding.state]
            console.print(f"{mark} {finding.subject}: {printable(finding.says)}", style=style)
            if finding.remedy:
                console.print(f"    → {printable(finding.remedy)}")
    return int(any(finding.state == PROBLEM for finding in found))


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a look finds; where the look itself fails, that is a finding too: this command must end on any machine."""
    try:
        yield from look()
    except Exception as error:
        says = f"cannot be looked at: {type(error).__name__}: {error}"
        yield Finding(look.__name__.strip("_"), PROBLEM, says, "reinstall the package that it names, then ask again")


def _installed(module: str) -> ModuleType | None:
    """The module, or None where it is not installed. Raises what its import raises where it is broken."""
    return importlib.import_module(module) if util.find_spec(module) else None


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", OK, f"{version}, {sys.platform}, {os.cpu_count()} processors")


def _packages() -> Iterator[Finding]:
    from tracereel.cli.errors import EXTRAS

    sources = metadata.packages_distributions()  # reads what every installed package holds: once
    for extra, modules in {"": ("msgspec", "numpy", "rich", "zstandard"), **EXTRAS}.items():
        name = f"tracereel[{extra}]" if extra else "tracereel"
        found = {module: _version(module, sources) for module in modules}
        missing = [module for module, version in found.items() if version is None]
        said = ", ".join(f"{module} {version}" for module, version in found.items() if version)
        if not missing:
            own = f"{metadata.version('tracereel')}: " if not extra else ""
            yield Finding(name, OK, own + said)
        elif len(missing) == len(found) and extra:
            yield Finding(name, ABSENT, "not installed", f"pip install '{name}'")
        else:
            yield Finding(name, PROBLEM, f"lacks {', '.join(missing)} (has {said})", f"pip install '{name}'")


def _version(module: str, sources: Mapping[str, list[str]]) -> str | None:
    """The version of a module's distribution, which `sources` names; None where it cannot be imported."""
    if util.find_spec(module) is None:
        return None
    return metadata.version(sources.get(module, [module])[0])


def _memory() -> Iterator[Finding]:
    free = _free_memory()
    if free is None:
        yield Finding("memory", ABSENT, "this system does not say how much is free")
        return
    says = f"{free / 2**30:.1f} GiB free"
    if free < NEEDED_BYTES:
        needed = f"recording takes about {NEEDED_BYTES / 2**30:.0f} GiB: end other programs, or record with fewer slots"
        yield Finding("memory", PROBLEM, says, needed)
    else:
        yield Finding("memory", OK, says)


def _free_memory() -> int | None:
    """Bytes that can still be taken: of the machine, or of the control group that we are in."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(free, limit - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return free


def _disk() -> Iterator[Finding]:
    for subject, folder in (("disk, films", Path.cwd()), ("disk, model cache", _cache())):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        says = f"{free / 2**30:.1f} GiB free in {folder}"
        writable = os.access(folder, os.W_OK)
        if not writable:
            yield Finding(subject, PROBLEM, f"{folder} cannot be written to", "change to a folder of your own")
        elif free < FILM_BYTES:
            yield Finding(subject, PROBLEM, says, "make room: films and the model take about a gigabyte")
        else:
            yield Finding(subject, OK, says)


def _cache() -> Path:
    named = os.environ.get("TRACEREEL_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracereel"


def _devices() -> Iterator[Finding]:
    torch = _installed("torch")
    if torch is None:
        yield Finding("devices", ABSENT, "recording needs torch", "pip install 'tracereel[engine]'")
        return
    from tracereel.engine.loading import device_info, has_bf16

    cpu = device_info(torch.device("cpu"))
    dtypes = "bf16, fp32" if has_bf16(torch.device("cpu")) else "fp32 (bf16 only by emulation)"
    yield Finding("device cpu", OK, f"{cpu.name}, {cpu.threads} threads, {dtypes}")
    if not torch.cuda.is_available():
        if Path("/dev/nvidiactl").exists():
            says = f"there is an NVIDIA driver, but torch {torch.__version__} finds no device"
            remedy = "install a torch built for CUDA (https://pytorch.org/get-started), and see that the driver is new"
            yield Finding("device cuda", PROBLEM, says, f"{remedy} enough: nvidia-smi")
        else:
            yield Finding("device cuda", ABSENT, "none; recordings are made on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        info = device_info(device)
        free, total = torch.cuda.mem_get_info(device)
        dtypes = "bf16, fp32" if has_bf16(device) else "fp32"
        says = f"{info.name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, {dtypes}, CUDA {info.driver}"
        full = None if free >= NEEDED_BYTES else "end what holds its memory (nvidia-smi names it), or --device cpu"
        yield Finding(f"device cuda:{index}", PROBLEM if full else OK, says, full)


def _model() -> Iterator[Finding]:
    if util.find_spec("torch") is None:
        return
    from tracereel.engine.model_store import FILE_SHA256, model_path

    path = model_path()
    if not path.is_file():
        yield Finding("model", ABSENT, f"not in the cache ({path})", "tracereel fetch")
        return
    import hashlib

    with path.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest() == FILE_SHA256
    if whole:
        yield Finding("model", OK, f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, its hash is right")
    else:
        yield Finding("model", PROBLEM, f"{path} is not what it was", f"delete {path}, then: tracereel fetch")


def _recordings() -> Iterator[Finding]:
    from tracereel.trace.format.storage import TraceError
    from tracereel.trace.recordings.index import RecordingIndex

    try:
        index = RecordingIndex()
    except TraceError as error:
        yield Finding("recordings", PROBLEM, str(error), "tracereel record, or set TRACEREEL_RECORDINGS to a folder")
        return
    devices = sorted({recording.header.device.name for recording in index.recordings})
    says = f"{len(index.recordings)} of {', '.join(devices)}, in {index.folder}"
    yield Finding("recordings", OK, says)


def _fonts() -> Iterator[Finding]:
    for package, name, face in (
        ("fontpkg_inter", "Inter", "sans"),
        ("fontpkg_jetbrains_mono", "JetBrains Mono", "mono"),
    ):
        if util.find_spec(package) is None:
            yield Finding(f"font {name}", ABSENT, "rendering needs it", "pip install 'tracereel[scenes]'")
        elif util.find_spec("uharfbuzz") and util.find_spec("cairo"):
            from tracereel.film.lettering import font_path

            path = Path(font_path(face))
            there = path.is_file()
            remedy = None if there else f"pip install --force-reinstall {package.replace('_', '-')}"
            yield Finding(f"font {name}", OK if there else PROBLEM, str(path), remedy)


def _encoder() -> Iterator[Finding]:
    av = _installed("av")
    if av is None:
        yield Finding("encoder", ABSENT, "rendering needs PyAV", "pip install 'tracereel[scenes]'")
        return
    lacking = [codec for codec in ("libx264", "libvpx-vp9") if codec not in av.codec.codecs_available]
    if lacking:
        remedy = "pip install --force-reinstall av (its wheels bring FFmpeg)"
        yield Finding("encoder", PROBLEM, f"PyAV {av.__version__} has no {', '.join(lacking)}", remedy)
    else:
        yield Finding("encoder", OK, f"PyAV {av.__version__} with libx264 and libvpx-vp9; no ffmpeg program is needed")


def _opener() -> Iterator[Finding]:
    from tracereel.film.opener import find_opener

    if found := find_opener():
        yield Finding("opener", OK, found)
    else:
        says = "nothing here opens a film when it is rendered (manim -p); it is rendered all the same"
        yield Finding("opener", ABSENT, says, "apt install xdg-utils, or open the file that is printed")


def _plots() -> Iterator[Finding]:
    matplotlib = _installed("matplotlib")
    if matplotlib is None:
        yield Finding("plots", ABSENT, "tracereel plot needs matplotlib", "pip install 'tracereel[analysis]'")
        return
    cache = Path(matplotlib.get_cachedir())
    if os.access(cache, os.W_OK):
        yield Finding("plots", OK, f"matplotlib {matplotlib.__version__}, its cache in {cache}")
    else:
        yield Finding("plots", PROBLEM, f"{cache} cannot be written to", "set MPLCONFIGDIR to a folder of your own")
