"""Where a session's files are. Knows paths alone."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """The folders of a session below `out`."""

    out: Path

    @property
    def work(self) -> Path:
        """What is not carried back, next to `out`: unpacked wheels, the model, exports."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def results(self) -> Path:
        """A JSON file a stage."""
        return self.out / "results"

    @property
    def recordings(self) -> Path:
        """A folder a suite, in it one a device: as below trace/recordings."""
        return self.out / "recordings"

    @property
    def logs(self) -> Path:
        """What each stage said."""
        return self.out / "logs"

    @property
    def done(self) -> Path:
        """An empty file for each stage that ended well."""
        return self.out / "done"

    def make(self) -> None:
        """Make the folders."""
        for folder in (self.out, self.work, self.results, self.logs, self.done):
            folder.mkdir(parents=True, exist_ok=True)
