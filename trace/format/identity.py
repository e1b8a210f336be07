"""What a header says of a processor and of a file: the processor by its own account, the file by SHA-256. No torch."""

import hashlib
import platform
from functools import cache
from pathlib import Path


@cache
def cpu_facts() -> dict[str, str]:
    """The first processor's entries in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.split("\n\n", 1)[0].splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in pairs}
    facts.setdefault("flags", facts.get("Features", ""))
    return facts


def cpu_name() -> str:
    """The processor's name."""
    return cpu_facts().get("model name") or platform.processor() or platform.machine()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
