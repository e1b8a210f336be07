"""The program of this system that opens a finished film (`manim -p`). Knows programs' names. Opens nothing."""

import os
import shutil


def find_opener() -> str | None:
    """The name of the program that opens files on this desktop; None where there is none."""
    if os.name == "nt":
        return "explorer"
    return next((name for name in ("xdg-open", "open", "cygstart") if shutil.which(name)), None)
