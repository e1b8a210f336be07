"""What a film is made of: recordings, a stage, words and settings.

A beat asks a `Show` for its runs and its words and returns a value; it needs no renderer. Knows the index of
recordings; draws nothing.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

from tracereel.film.colours import RequestColours
from tracereel.film.lettering import FontError, add_faces, can_set
from tracereel.film.phrases import Phrase, Phrasebook, figure, quote
from tracereel.film.settings import Settings
from tracereel.film.stage import Stage
from tracereel.film.theme import Palette
from tracereel.trace.analysis.queries import Run, measure, median_of
from tracereel.trace.format.storage import TraceError
from tracereel.trace.recordings.index import FILM, RecordingIndex, read_digest


class Show:
    """The recordings that are played, on a stage of so many pixels, in the words of a language.

    `recordings` are those of each suite that may be played, where it is not the settings that say it: a film is made
    again from just those it was made from. Raises FontError where no face has the language's characters.
    """

    def __init__(
        self, settings: Settings, pixels: tuple[int, int], recordings: Mapping[str, RecordingIndex] | None = None
    ):
        self.settings = settings
        self._given = recordings
        self.pixels = pixels
        add_faces((*settings.brand.fonts, *settings.fonts))
        self.say = Phrasebook(settings.language)
        if not can_set("".join(self.say.texts())):
            raise FontError(
                f"the words in {settings.language!r} need a face that is not here: name its file with"
                " TRACEREEL_FONTS (Debian has NotoSansCJK-Regular.ttc in fonts-noto-cjk)"
            )
        self.stage = Stage.of_pixels(*pixels, settings.captions)
        self.film: str | None = None
        """The film that its beats are made for; None where it is the short one, or a scene alone."""
        self.shown: dict[str, Run] = {}
        """The runs that were asked for so far, by their traces' digests."""
        self._indexes: dict[str, RecordingIndex] = {}
        self._runs: dict[tuple[str, str], list[Run]] = {}
        self._colours: dict[str, RequestColours] = {}

    def on(self, stage: Stage, film: str) -> "Show":
        """The same show on another stage, for another film; what is asked of it is noted in this one."""
        other = copy(self)
        other.stage, other.film = stage, film
        return other

    @property
    def palette(self) -> Palette:
        """What colours look like."""
        return self.settings.palette

    @property
    def recordings(self) -> RecordingIndex:
        """The film's recordings."""
        return self.recordings_of(FILM)

    def recordings_of(self, suite: str) -> RecordingIndex:
        """The recordings of a suite that are played. Raises TraceError where there are none."""
        found = self._indexes.get(suite)
        if found is None:
            found = self._indexes[suite] = self._index(suite)
        return found

    def _index(self, suite: str) -> RecordingIndex:
        if self._given is None:
            return RecordingIndex(self.settings.recordings, suite, self.settings.device)
        if suite not in self._given:
            raise TraceError(suite, "the film was made without a recording of this suite")
        return self._given[suite]

    def runs(self, case: str, suite: str = FILM) -> list[Run]:
        """All repeats of a case. Raises TraceError where there is no recording of it."""
        found = self._read(case, suite)
        self.shown.update({run.trace.digest: run for run in found})
        return found

    def _read(self, case: str, suite: str) -> list[Run]:
        found = self._runs.get((suite, case))
        if found is None:
            recordings = self.recordings_of(suite).case(case)
            found = self._runs[suite, case] = [
                Run(recording.read(allow_broken=self.settings.allow_broken)) for recording in recordings
            ]
        return found

    @property
    def files(self) -> list[Path]:
        """All recordings that could have been played so far: of every suite that was asked for, each file."""
        return [recording.path for index in self._indexes.values() for recording in index.recordings]

    @property
    def recorded(self) -> dict[str, tuple[str, ...]]:
        """The digests of the traces of every suite that was asked for so far, in the order of their files."""
        read = {run.trace.path: run.trace.digest for runs in self._runs.values() for run in runs}
        return {
            suite: tuple(read.get(recording.path) or read_digest(recording.path) for recording in index.recordings)
            for suite, index in self._indexes.items()
        }

    @property
    def read(self) -> dict[str, Run]:
        """Every run that was read so far, by its trace's digest."""
        return {run.trace.digest: run for runs in self._runs.values() for run in runs}

    def run(self, case: str, suite: str = FILM) -> Run:
        """The repeat of a case that is shown: the one with the median throughput, of those that gave a token."""
        return _median(self.runs(case, suite))

    def chosen(self, digest: str, suite: str = FILM) -> Run:
        """The recording of a suite whose trace's digest begins so. Raises TraceError where it is not there."""
        index = self.recordings_of(suite)
        for recording in index.recordings:
            run = next(run for run in self._read(recording.case, suite) if run.trace.path == recording.path)
            if run.trace.digest.startswith(digest):
                self.shown[run.trace.digest] = run
                return run
        raise TraceError(index.folder, f"no trace there has a digest that begins with {digest}")

    def colours(self, suite: str = FILM) -> RequestColours:
        """The requests' colours in a suite: those of the repeats that are shown, of all its cases together."""
        found = self._colours.get(suite)
        if found is None:
            cases = dict.fromkeys(recording.case for recording in self.recordings_of(suite).recordings)
            shown = [_median(self._read(case, suite)).trace for case in cases]
            found = self._colours[suite] = RequestColours(shown)
        return found

    def case_name(self, case: str, run: Run) -> Phrase:
        """What a case is called on screen: by its word in the phrasebook, else by the policy its trace names."""
        key = case.replace("-", "_")
        return self.say.say(f"cases.{key}") if self.say.has(f"cases.{key}") else quote(run.measure("policy"))

    def ask(self, query: str, numerator: Sequence[Run], denominator: Sequence[Run], style: str) -> Phrase:
        """A figure from two cases' repeats."""
        return figure(measure(query, [*numerator, *denominator], numerator=len(numerator)), style)

    def quote(self, run: Run, query: str) -> Phrase:
        """What a run says of itself."""
        return quote(run.measure(query))


def _median(runs: Sequence[Run]) -> Run:
    """The run with the median throughput, of those that gave a token."""
    answered = [run for run in runs if len(run.trace.steps.token_id)]
    return median_of(answered) if answered else runs[0]
