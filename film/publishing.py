"""What goes with a film: ledger, captions and still next to it; provenance, chapters and sound within its file.

The one place that writes them, for a film that was rendered and for one that was joined. Knows shows and beats.
"""

from collections.abc import Sequence
from pathlib import Path

from tracereel.film.beat import Beat
from tracereel.film.captions import chapters_of, cues_of, write_captions
from tracereel.film.ledger import LEDGER_DIGEST, LedgerFile, digest_of, encode_ledger, ledger_path
from tracereel.film.provenance import stamp
from tracereel.film.show import Show
from tracereel.film.sound import soundtrack
from tracereel.film.stills import write_still
from tracereel.trace.format.storage import replace_bytes


def publish(film: Path, show: Show, timed_beats: Sequence[tuple[float, Beat]], ledger: LedgerFile) -> None:
    """Write all that goes with a film of these beats, each with the second of film at which its own clock begins.

    Raises SoundError where the sound that was asked for cannot be made.
    """
    data = encode_ledger(ledger)
    replace_bytes(ledger_path(film), data)
    film_s = ledger.frames / ledger.frame_rate
    cues, chapters = cues_of(timed_beats), chapters_of(timed_beats, film_s)
    write_captions(film, cues, chapters)
    if timed_beats:
        write_still(film, [beat for _, beat in timed_beats], show)
    facts = {**ledger.provenance, LEDGER_DIGEST: digest_of(data)}
    stamp(film, facts, chapters, soundtrack(show.settings, timed_beats, cues, film_s))
