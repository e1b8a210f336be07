"""How far long work is: a bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from tracereel.cli.terminal import Terminal, printable, warn


class ProgressReport:
    """Told how far the work is; draws a bar with the time left, or prints a line where the label changes."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
            )
            self._progress = Progress(*columns, TimeRemainingColumn(), console=Terminal(stderr=True), transient=True)

    def __enter__(self) -> "ProgressReport":
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task("", total=None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._progress:
            self._progress.stop()

    def __call__(self, label: str, done: int, total: int) -> None:
        """The work is `done` of `total`; `label` says what is being done."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, description=printable(label), completed=done, total=total)
        elif label != self._label:
            self._label = label
            warn(f"[{100 * done // max(total, 1):3d} %] {label}")
