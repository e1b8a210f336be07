"""The one place that turns exceptions into lines: what the user can mend, and what is a fault of tracereel's own."""

import argparse
import os
import sys
import tempfile
import traceback
from concurrent.futures import BrokenExecutor
from importlib import metadata
from pathlib import Path

EXTRAS = {
    "engine": ("torch", "gguf", "safetensors", "huggingface_hub", "tokenizers", "jinja2"),
    "scenes": ("manim", "uharfbuzz", "cairo", "av", "segno", "fontpkg_inter", "fontpkg_jetbrains_mono"),
    "analysis": ("matplotlib", "pyarrow"),
}
"""The optional parts of the package, and the modules that each brings."""
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_LONGEST = 400
_TRACES = ("trace", "traces", "old", "new", "runs", "recordings")
"""What commands call the arguments that name traces."""


def explained(error: BaseException) -> str | None:
    """One line for an exception that a user can do something about; None for a fault of tracereel's own."""
    if isinstance(error, ModuleNotFoundError):
        return _not_installed(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)
    ):
        return "there is not enough memory for this; ask for less (fewer KV blocks or slots, a smaller model or size)"
    if isinstance(error, BrokenExecutor):
        return "a process that worked for this was ended from outside, perhaps for lack of memory; try it with --jobs 1"
    if _package_of(type(error).__module__) == "tracereel":
        return _one_line(str(error))
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, ValueError) and "null byte" in str(error):  # what the system's own functions say of a path
        return "the name of a file holds a null byte"
    if isinstance(error, RecursionError):
        return None
    library = _library_that_raised(error)
    # Another's refusal of a value is the user's to mend; its TypeError or KeyError is a fault in how it is called.
    if library and (isinstance(error, ValueError) or _package_of(type(error).__module__) == library):
        return _one_line(f"{library} refuses this: {error or type(error).__name__}")
    return None


def faulty_input(args: argparse.Namespace) -> str | None:
    """One line for the first trace, of those that a command was given, that breaks the rules of a trace; else None.

    A command that fails on such a trace has no fault of its own: nothing can be computed from it.
    """
    from tracereel.cli.files import trace_files
    from tracereel.trace.check.invariants import check
    from tracereel.trace.format.storage import TraceError
    from tracereel.trace.recordings.index import ENVIRONMENT

    given = [value for name in _TRACES if (value := getattr(args, name, None))]
    if hasattr(args, "recordings") and not given:
        given = [Path(named)] if (named := os.environ.get(ENVIRONMENT)) else []
    try:
        for file in trace_files(path for value in given for path in (value if isinstance(value, list) else [value])):
            if wrong := check(file, limit=1).violations:
                return _one_line(f"{file}: is not valid ({wrong[0]}); see `tracereel check`")
    except TraceError as error:
        return _one_line(str(error))
    return None


def fault_report(error: BaseException) -> str:
    """Write down a fault of tracereel's own; gives the line that says where, and where to send it."""
    what = _one_line(f"{type(error).__name__}: {error}")
    lines = [
        f"tracereel {metadata.version('tracereel')}, Python {sys.version.split()[0]}, {sys.platform}",
        f"command: {sys.argv}",
        *traceback.format_exception(error),
    ]
    try:
        descriptor, name = tempfile.mkstemp(prefix="tracereel-fault-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines))
    except OSError:
        return f"this is a fault of tracereel's own: {what}; please report it {_where()}, with the command"
    return f"this is a fault of tracereel's own: {what}; please send {name} {_where()}"


def _where() -> str:
    """Where reports go: what the installed package names, else its source."""
    for url in metadata.metadata("tracereel").get_all("Project-URL") or []:
        label, _, address = url.partition(", ")
        if label.lower() in ("issues", "bug tracker", "tracker"):
            return f"to {address}"
    return "to the issues of the repository that this tracereel is from"


def _not_installed(error: ModuleNotFoundError) -> str | None:
    missing = _package_of(error.name or "")
    extra = next((extra for extra, packages in EXTRAS.items() if missing in packages), None)
    return extra and f"{missing} is not installed; install it with: pip install 'tracereel[{extra}]'"


def _of_the_system(error: OSError) -> str:
    where = error.filename if error.filename is not None else ""
    where = os.fsdecode(where) if isinstance(where, str | bytes | Path) else str(where)
    why = error.strerror or str(error) or type(error).__name__
    return _one_line(f"{where}: {why}" if where else why)


def _library_that_raised(error: BaseException) -> str | None:
    """The package other than ours and Python's own whose code raised it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    package = _package_of(frame.tb_frame.f_globals.get("__name__") or "") if frame is not None else ""
    return package if package and package != "tracereel" and package not in sys.stdlib_module_names else None


def _package_of(module: str) -> str:
    return module.split(".")[0]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
