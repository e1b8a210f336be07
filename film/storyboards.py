"""The films: which beats each tells, one after the other."""

from collections.abc import Iterator

from tracereel.film.beat import Beat
from tracereel.film.beats.batch_size_sweep import batch_size_sweep
from tracereel.film.beats.cards import end_card, title_card
from tracereel.film.beats.chunked_prefill import chunked_prefill
from tracereel.film.beats.decode_batching import decode_batching
from tracereel.film.beats.engine_race import engine_race
from tracereel.film.beats.kv_cache_paging import kv_cache_paging
from tracereel.film.beats.latency import latency
from tracereel.film.beats.pipeline_flow import pipeline_flow
from tracereel.film.beats.same_position import same_position
from tracereel.film.beats.speedup_waterfall import speedup_waterfall
from tracereel.film.beats.throughput_comparison import throughput_comparison
from tracereel.film.beats.where_it_hurts import where_it_hurts
from tracereel.film.show import Show
from tracereel.trace.analysis.comparable import NotComparableError
from tracereel.trace.format.storage import TraceError

_BEATS = (
    *(pipeline_flow, decode_batching, same_position),
    *(throughput_comparison, latency, speedup_waterfall),
    *(batch_size_sweep, chunked_prefill, kv_cache_paging, where_it_hurts),
    engine_race,
)


def full_length(show: Show) -> Iterator[Beat]:
    """Every beat that the recordings can tell, between the cards. Raises TraceError where there are none at all."""
    yield title_card(show)
    for beat in _BEATS:
        try:
            told = beat(show)
        except (TraceError, NotComparableError):
            continue
        yield told
    yield end_card(show)


def continuous_batching(show: Show) -> Iterator[Beat]:
    """The film's beats, each of the scene of its name; a beat whose recordings are not there is left out."""
    has = show.recordings.has
    yield title_card(show)
    yield pipeline_flow(show)
    yield decode_batching(show)
    if has("same-position") and has("continuous"):
        yield same_position(show)
    yield throughput_comparison(show)
    yield end_card(show)
