"""Packs what a GPU machine without a network lacks, in parts that are small enough to be carried, and unpacks it there.

    python benchmarks/gpu_parcel.py pack FOLDER [--part-mib 40] [--machine benchmarks/gpu_machine.txt] [--no-vllm]
    python benchmarks/gpu_parcel.py check FOLDER
    python benchmarks/gpu_parcel.py unpack FOLDER --to PLACE

In the parcel: the default model, the wheels of tracereel's own dependencies, and vLLM's wheel with its dependencies,
all less what the machine has. FOLDER gets part-1, part-2, ... and parcel.json, which lists every file with version,
size and SHA-256; larger files are cut into pieces. `pack` and `check` follow every requirement of every wheel and fail
where one is neither in the parcel, nor on the machine, nor left out on purpose. `unpack` puts the pieces together,
checks each file by its hash, and lays the model into PLACE, and the wheels, installed, into PLACE/own and PLACE/vllm.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

HERE = Path(__file__).resolve().parent
VLLM = ("vllm==0.25.1", "xgrammar==0.2.1")
"""The version that takes the machine's torch. xgrammar: later ones call an apache-tvm-ffi that vLLM does not take."""
TARGET = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "extra": "",
}
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 38, 37, 36, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
OWN_NEEDS = ("pytest", "hypothesis")
"""What the tests need besides tracereel's dependencies."""
MANIFEST = "parcel.json"
_CHUNK = 2**20

# vLLM runs a dense model of bf16 weights on one H100 without these; what it would use instead of its own is large.
LEFT_OUT = {
    "flashinfer-python": "other attention and sampling kernels; vLLM takes its own FlashAttention 3",
    "flashinfer-cubin": "compiled kernels of FlashInfer, 458 MB",
    "tilelang": "kernels of models that are not run here",
    "humming-kernels": "quantized products",
    "tokenspeed-mla": "MLA attention",
    "quack-kernels": "kernels in CuTe DSL",
    "nvidia-cutlass-dsl": "compiler of kernels in CuTe DSL",
    "nvidia-cudnn-frontend": "attention of vision encoders",
    "fastsafetensors": "another loader",
    "pynvvideocodec": "video input",
    "torchcodec": "video and audio input",
}


class ParcelError(Exception):
    """A parcel cannot be packed or is not whole; the message is one line."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a file, in a part."""

    part: int
    name: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A file of the parcel. `kind`: model, own (tracereel's dependency) or vllm."""

    kind: str
    name: str
    version: str
    size: int
    sha256: str
    pieces: tuple[Piece, ...]


# What is needed.


def machine_packages(file: Path) -> dict[str, str | None]:
    """Packages that are there, by canonical name: the version, None where it is not known. Raises ParcelError."""
    found: dict[str, str | None] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise ParcelError(f"{file}:{number}: {text!r} is neither a name nor name==version") from None
        pin = next((part.version for part in requirement.specifier if part.operator == "=="), None)
        found[canonicalize_name(requirement.name)] = pin
    return found


def applies(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Does a requirement count on the machine, with these extras of the package that has it?"""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**TARGET, "extra": extra}) for extra in ("", *extras))


def requirements_of(wheel: Path, extras: Iterable[str]) -> list[Requirement]:
    """What a wheel requires on the machine."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        content = Parser().parsestr(archive.read(name).decode())
    asked = [Requirement(text) for text in content.get_all("Requires-Dist") or []]
    return [requirement for requirement in asked if applies(requirement, extras)]


def is_there(requirement: Requirement, machine: dict[str, str | None]) -> bool:
    """Has the machine a package that meets a requirement? One whose version is not known is trusted to."""
    name = canonicalize_name(requirement.name)
    if name not in machine:
        return False
    version = machine[name]
    return version is None or requirement.specifier.contains(version, prereleases=True)


@dataclass
class Needs:
    """Requirements by canonical name: all the specifiers together, all extras, and which wheels ask."""

    specifier: SpecifierSet
    extras: set[str]
    askers: list[str]


def missing(roots: Sequence[Requirement], wheels: dict[str, Path], machine: dict[str, str | None]) -> dict[str, Needs]:
    """All that must be carried, from `roots` on through the wheels that are there: by name, what is asked of it."""
    asked: dict[str, Needs] = {}
    queue = [(requirement, "this run") for requirement in roots if applies(requirement)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement, asker = queue.pop()
        name = canonicalize_name(requirement.name)
        own = asked.setdefault(name, Needs(SpecifierSet(), set(), []))
        own.specifier &= requirement.specifier
        own.extras |= requirement.extras
        own.askers.append(asker)
        key = name, frozenset(own.extras)
        if name in wheels and key not in seen:
            seen.add(key)
            queue += [(inner, name) for inner in requirements_of(wheels[name], own.extras)]
    return {
        name: own
        for name, own in asked.items()
        if name not in LEFT_OUT and not is_there(Requirement(f"{name}{own.specifier}"), machine)
    }


def version_of(wheel: Path) -> str:
    """The version in a wheel's name."""
    return str(parse_wheel_filename(wheel.name)[1])


def unmet(needed: dict[str, Needs], wheels: dict[str, Path]) -> dict[str, Needs]:
    """What is needed and has no wheel, or one of a version that somebody does not want."""
    return {
        name: own
        for name, own in needed.items()
        if name not in wheels or not own.specifier.contains(version_of(wheels[name]), prereleases=True)
    }


def collect(roots: Sequence[Requirement], machine: dict[str, str | None], folder: Path) -> dict[str, Path]:
    """Download all that must be carried into `folder`; by canonical name. Raises ParcelError."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels: dict[str, Path] = {}
    for _ in range(40):
        needed = missing(roots, wheels, machine)
        lacking = unmet(needed, wheels)
        if not lacking:
            return {name: wheels[name] for name in needed}
        for name, own in lacking.items():
            wheels[name] = download(f"{name}{own.specifier}", folder / name)
            print(f"{wheels[name].name}, for {', '.join(sorted(set(own.askers)))}", file=sys.stderr, flush=True)
    raise ParcelError(f"no set of versions meets every requirement: {', '.join(sorted(lacking))}")


def download(requirement: str, folder: Path) -> Path:
    """A wheel for the machine. Raises ParcelError."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--python-version", "3.12", "--implementation", "cp"]
    command += [part for platform in PLATFORMS for part in ("--platform", platform)]
    done = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True)
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        why = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ParcelError(f"{requirement}: no wheel for the machine: {(why or ['pip found none'])[-1]}")
    return found[0]


def own_requirements() -> list[Requirement]:
    """What tracereel and its tests need to run an engine."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["engine"], *OWN_NEEDS]
    return [Requirement(text) for text in asked]


# Packing and unpacking.


def digest_of(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pack(files: Sequence[tuple[str, Path]], folder: Path, part_bytes: int) -> list[Entry]:
    """Lay (kind, file) into parts of at most so many bytes, and list them in the manifest."""
    if folder.exists() and any(folder.iterdir()):
        raise ParcelError(f"{folder}: is not empty; a parcel is packed into a folder of its own")
    entries, part, room = [], 1, part_bytes
    for kind, file in files:
        pieces: list[Piece] = []
        with file.open("rb") as stream:
            left = file.stat().st_size
            while left or not pieces:
                if not room:
                    part, room = part + 1, part_bytes
                size = min(left, room)
                name = f"{file.name}.{len(pieces)}"
                target = folder / f"part-{part}" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(stream.read(size))
                pieces.append(Piece(part, name, size))
                left, room = left - size, room - size
        named = parse_wheel_filename(file.name)[:2] if file.suffix == ".whl" else (file.name, "")
        entries.append(Entry(kind, str(named[0]), str(named[1]), file.stat().st_size, digest_of(file), tuple(pieces)))
    text = json.dumps([asdict(entry) for entry in entries], indent=1) + "\n"
    (folder / MANIFEST).write_text(text)
    # Whoever carries the parts has it with the first.
    (folder / "part-1" / MANIFEST).write_text(text)
    return entries


def read_manifest(folder: Path) -> list[Entry]:
    """The files of a parcel. Raises ParcelError."""
    file = next((place for place in (folder / MANIFEST, folder / "part-1" / MANIFEST) if place.is_file()), None)
    if file is None:
        raise ParcelError(f"{folder}: has no {MANIFEST}; part-1 brings it")
    try:
        listed = json.loads(file.read_text())
        return [Entry(**{**own, "pieces": tuple(Piece(**piece) for piece in own["pieces"])}) for own in listed]
    except (ValueError, TypeError, KeyError) as error:
        raise ParcelError(f"{file}: is not a parcel's list ({error})") from None


def joined(entry: Entry, folder: Path, target: Path) -> Path:
    """Put a file together from its pieces as `target`. Raises ParcelError where one is missing or its hash is wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.part")
    with fresh.open("wb") as out:
        for piece in entry.pieces:
            source = folder / f"part-{piece.part}" / piece.name
            if not source.is_file():
                raise ParcelError(f"{entry.name}: {source} is missing; part-{piece.part} brings it")
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, out, _CHUNK)
    if (found := digest_of(fresh)) != entry.sha256:
        raise ParcelError(f"{entry.name}: has sha256 {found[:12]}…, the list says {entry.sha256[:12]}…; carry it again")
    fresh.replace(target)
    return target


def file_name(entry: Entry) -> str:
    """The name of an entry's file."""
    return entry.pieces[0].name.rpartition(".")[0]


def unpack(folder: Path, place: Path, kinds: Sequence[str]) -> list[str]:
    """Put files of these kinds in their places; returns a line for each kind. Raises ParcelError."""
    entries, said = read_manifest(folder), []
    for kind in kinds:
        own = [entry for entry in entries if entry.kind == kind]
        if not own:
            continue
        if kind == "model":
            from_model = own[0]
            joined(from_model, folder, place / file_name(from_model))
            said.append(f"model: {place / file_name(from_model)}")
            continue
        with tempfile.TemporaryDirectory(dir=place) as wheels:
            files = [joined(entry, folder, Path(wheels) / file_name(entry)) for entry in own]
            install(files, place / kind)
        said.append(f"{kind}: {len(own)} wheels in {place / kind}")
    return said


def install(wheels: Sequence[Path], target: Path) -> None:
    """Install wheels, and nothing else, into a folder. Raises ParcelError."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(target)]
    done = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True)
    if done.returncode:
        why = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise ParcelError(f"{target}: {why[-1]}")


def check(folder: Path, machine: dict[str, str | None]) -> list[str]:
    """Read every piece, follow every requirement; returns what the machine alone can tell. Raises ParcelError."""
    entries = read_manifest(folder)
    trusted: set[str] = set()
    with tempfile.TemporaryDirectory() as place:
        files = [(entry, joined(entry, folder, Path(place) / entry.kind / file_name(entry))) for entry in entries]
        for kind in {entry.kind for entry in entries} - {"model"}:
            wheels = {canonicalize_name(entry.name): file for entry, file in files if entry.kind == kind}
            roots = own_requirements() if kind == "own" else [Requirement(VLLM[0])]
            for name, own in unmet(missing(roots, wheels, machine), wheels).items():
                asked = ", ".join(sorted(set(own.askers)))
                raise ParcelError(f"{name}{own.specifier}, for {asked}: is neither in the parcel nor on the machine")
            for wheel in wheels.values():
                for asked_of in requirements_of(wheel, ()):
                    name = canonicalize_name(asked_of.name)
                    if asked_of.specifier and name not in wheels and name in machine and machine[name] is None:
                        trusted.add(f"{name}{asked_of.specifier}")
    return sorted(trusted)


def table(entries: Sequence[Entry]) -> str:
    """The parcel's list as lines."""
    lines = [f"{'file':44}{'version':18}{'MiB':>8}  part  sha256"]
    for entry in sorted(entries, key=lambda entry: -entry.size):
        parts = sorted({piece.part for piece in entry.pieces})
        where = str(parts[0]) if len(parts) == 1 else f"{parts[0]}-{parts[-1]}"
        name = f"{entry.kind}: {entry.name}"
        lines.append(f"{name:44}{entry.version:18}{entry.size / 2**20:8.1f}  {where:4}  {entry.sha256[:16]}")
    total = sum(entry.size for entry in entries)
    last = max(piece.part for entry in entries for piece in entry.pieces)
    return "\n".join([*lines, f"{len(entries)} files, {total / 2**20:.0f} MiB in {last} parts"])


def pack_all(args: argparse.Namespace) -> None:
    """Collect, pack and check."""
    from tracereel.engine.model_store import require_model

    machine = machine_packages(args.machine)
    with tempfile.TemporaryDirectory() as place:
        own = collect(own_requirements(), machine, Path(place) / "own")
        files = [("model", require_model()), *(("own", wheel) for wheel in sorted(own.values()))]
        if not args.no_vllm:
            wheels = collect([*map(Requirement, VLLM)], machine, Path(place) / "vllm").values()
            files += [("vllm", wheel) for wheel in sorted(wheels, key=lambda wheel: wheel.stat().st_size)]
        args.folder.mkdir(parents=True, exist_ok=True)
        entries = pack(files, args.folder, args.part_mib * 2**20)
    print(table(entries))


def say_check(folder: Path, machine: dict[str, str | None]) -> None:
    """Check, and say what is left out and what is trusted."""
    trusted = check(folder, machine)
    print("whole: every hash is right, every requirement is in the parcel, on the machine, or left out on purpose")
    print("left out:", *(f"  {name}: {why}" for name, why in sorted(LEFT_OUT.items())), sep="\n")
    if trusted:
        print("on the machine in a version that is not known here:", *(f"  {text}" for text in trusted), sep="\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("pack", "check", "unpack"))
    parser.add_argument("folder", type=Path, help="the parcel")
    parser.add_argument("--part-mib", type=int, default=40, help="the most that one part holds (default: 40)")
    parser.add_argument("--machine", type=Path, default=HERE / "gpu_machine.txt", help="packages that are there")
    parser.add_argument("--no-vllm", action="store_true", help="pack the model and tracereel's own needs alone")
    parser.add_argument("--to", type=Path, help="of unpack: where to")
    args = parser.parse_args()
    try:
        if args.action == "pack":
            pack_all(args)
        if args.action == "unpack":
            if args.to is None:
                raise ParcelError("unpack: --to says where to")
            args.to.mkdir(parents=True, exist_ok=True)
            print(*unpack(args.folder, args.to, ("model", "own", "vllm")), sep="\n")
        else:
            say_check(args.folder, machine_packages(args.machine))
    except ParcelError as error:
        print(f"gpu_parcel.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
