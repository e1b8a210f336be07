"""Continuous batching, at full length: everything that the recordings tell, from the loop to other engines.

What the viewer should understand, in four parts. What it is: `pipeline_flow`, `decode_batching` and `same_position`.
What it is worth: `throughput_comparison`, `latency`, and in `speedup_waterfall` where it comes from. What it takes:
`batch_size_sweep`, `chunked_prefill`, `kv_cache_paging`, and in `where_it_hurts` the worst moment of the run. And
`engine_race`: what other engines make of the same requests.
"""

from collections.abc import Iterator

from tracereel.scenes.batch_size_sweep import batch_size_sweep
from tracereel.scenes.beat import Beat
from tracereel.scenes.cards import end_card, title_card
from tracereel.scenes.chunked_prefill import chunked_prefill
from tracereel.scenes.decode_batching import decode_batching
from tracereel.scenes.engine_race import engine_race
from tracereel.scenes.kv_cache_paging import kv_cache_paging
from tracereel.scenes.latency import latency
from tracereel.scenes.pipeline_flow import pipeline_flow
from tracereel.scenes.reel import ReelScene
from tracereel.scenes.same_position import same_position
from tracereel.scenes.speedup_waterfall import speedup_waterfall
from tracereel.scenes.throughput_comparison import throughput_comparison
from tracereel.scenes.where_it_hurts import where_it_hurts
from tracereel.trace.compare import NotComparableError
from tracereel.trace.storage import TraceError

_BEATS = (
    *(pipeline_flow, decode_batching, same_position),
    *(throughput_comparison, latency, speedup_waterfall),
    *(batch_size_sweep, chunked_prefill, kv_cache_paging, where_it_hurts),
    engine_race,
)


def full_length(reel: ReelScene) -> Iterator[Beat]:
    """Every beat that the recordings can tell, between the cards. Raises TraceError where there are none at all."""
    yield title_card(reel)
    for beat in _BEATS:
        try:
            told = beat(reel)
        except (TraceError, NotComparableError):
            continue
        yield told
    yield end_card(reel)


class FullLength(ReelScene):
    """The long film."""

    def construct(self) -> None:
        """Title, the beats that the recordings can tell, end."""
        for beat in full_length(self):
            self.tell(beat)
