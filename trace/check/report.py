"""The verdict on one trace file: what is violated, where, and what the file holds."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Violation:
    """One thing that cannot be: the line it stands on (0: the file as a whole), the rule broken, and how."""

    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.rule}: {self.message}" if self.line else f"{self.rule}: {self.message}"


@dataclass
class Report:
    """The verdict on one file. `complete` is False where checking stopped at a limit of violations."""

    path: Path
    violations: list[Violation] = field(default_factory=list)
    cut: str | None = None
    complete: bool = True
    requests: int = 0
    steps: int = 0
    output_tokens: int = 0
    missing_steps: int = 0
    """Steps that `index` counts and the file does not hold."""

    @property
    def ok(self) -> bool:
        """True where nothing is violated and the recording is whole."""
        return not self.violations and self.cut is None

    @property
    def fault(self) -> str | None:
        """The first thing that is wrong, in one line; None where nothing is."""
        return str(self.violations[0]) if self.violations else self.cut
