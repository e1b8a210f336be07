"""What an accelerator says of itself, and its faults in one line. The driver's facts come from `nvidia-smi`."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


class DeviceError(Exception):
    """The device cannot do what was asked, or was lost; the message is one line."""


def require_cuda(index: int = 0) -> None:
    """Raise DeviceError where CUDA device `index` cannot be used: not there, an old driver, a torch without CUDA."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        found = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise DeviceError(f"device: cuda was asked for, but {_sentence(error)}; try --device cpu") from None
    if not found:
        raise DeviceError("device: cuda was asked for, but torch finds no CUDA device here; try --device cpu")
    if index >= found:
        raise DeviceError(
            f"device: cuda:{index} was asked for, but torch finds {found} CUDA devices here, from cuda:0 on"
        )


@contextmanager
def faults_named(doing: str, advice: str = "") -> Iterator[None]:
    """Turn a device's faults into a DeviceError that says while doing what, and what to do about it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        hint = f"; {advice}" if advice else ""
        raise DeviceError(f"the device ran out of memory while {doing} ({_asked(error)}){hint}") from error
    except RuntimeError as error:
        if "CUDA" not in str(error):
            raise
        raise DeviceError(f"the device failed while {doing}: {_sentence(error)}") from error


@cache
def driver_version() -> str | None:
    """The version of the NVIDIA driver; None where it does not say."""
    answer = ask_driver("driver_version")
    return answer.get("driver_version")


def ask_driver(*fields: str) -> dict[str, str]:
    """Some of `nvidia-smi --help-query-gpu`'s fields of the first device; empty where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.strip().splitlines()[:1]
    return dict(zip(fields, values[0].split(", "), strict=True)) if values else {}


def _sentence(error: BaseException) -> str:
    """The first sentence of an error's message."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.split(r"\.\s", first)[0].rstrip(".")


def _asked(error: BaseException) -> str:
    """What was asked of the allocator and what there was, from torch's message."""
    asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
    free = re.search(r"of which ([\d.]+ \w+) is free", str(error))
    parts = [f"{asked[1]} more were wanted" if asked else "", f"{free[1]} were free" if free else ""]
    return ", ".join(part for part in parts if part) or _sentence(error)
