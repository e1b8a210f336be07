"""KV cache paging of a model whose groups of layers keep different KV: the tables of each, and blocks freed early.

What is drawn is held against the records themselves, as they stand in the recording of a model with a sliding window.
"""

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import msgspec
import numpy as np
import pytest
from drawing import LOOK, SIZE, draw, near, pixel
from films import SIZES, laid_out
from tracereel.film import theme
from tracereel.film.beats.kv_cache_paging import Storyboard
from tracereel.film.colours import RequestColours
from tracereel.film.components.block_pool import BlockPool
from tracereel.film.components.group_tables import GroupTables
from tracereel.film.frames import BeatFrames
from tracereel.film.lettering import width
from tracereel.film.phrases import Phrasebook
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.stage import Box
from tracereel.film.storyboards import storyboard
from tracereel.film.theme import SMALL
from tracereel.trace.analysis.moments import first_release
from tracereel.trace.analysis.queries import Run
from tracereel.trace.format.events import KvGroup
from tracereel.trace.format.storage import LineReader
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS

RECORDING = PACKAGE_RECORDINGS / "vllm-kinds" / "cpu" / "sliding-window.jsonl.zst"
BOX = Box(40, 40, 1200, 640)


@pytest.fixture(scope="module")
def run():
    return Run.read(RECORDING)


@pytest.fixture(scope="module")
def pool(run):
    return BlockPool(run, Phrasebook(), RequestColours([run.trace]))


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "only.jsonl.zst").write_bytes(RECORDING.read_bytes())
    return Settings(recordings=tmp_path)


@cache
def records():
    return [msgspec.json.decode(line) for _, line in LineReader(RECORDING)]


def tables_after(step):
    """What the records up to a step's schedule say: held[request][group][place] is a block, freed the places left."""
    held, freed = {}, {}
    for record in records():
        if record["event"] == "step" and record["index"] <= step:
            for request in record.get("preempted", []):
                del held[request], freed[request]
            for left in record.get("freed", []):
                table = held[left["request"]][left["group"]]
                for place in [place for place, block in table.items() if block in left["blocks"]]:
                    del table[place]
                    freed[left["request"]][left["group"]].add(place)
            for came in record.get("admitted", []):
                held[came["request"]] = [{} for _ in range(6)]
                freed[came["request"]] = [set() for _ in range(6)]
            for grant in record.get("group_blocks", []):
                held[grant["request"]][grant["group"]].update(enumerate(grant["blocks"], grant["place"]))
            if record["index"] < step:
                for ending in record.get("finished", []):
                    del held[ending["request"]], freed[ending["request"]]
    return held, freed


def test_the_state_knows_which_places_were_freed(run):
    seen = 0
    for step in range(0, len(run.trace.steps), 2):
        held, freed = tables_after(step)
        t_ns = int(run.trace.steps.start_ns[step])
        state = run.timeline.at(t_ns)
        assert {o.request for o in state.occupancy if o} == set(held)
        for request, places in freed.items():
            assert state.group_tables(request) == tuple(held[request])
            assert state.freed_places(request) == tuple(tuple(sorted(each)) for each in places)
            count = sum(map(len, places))
            assert run.measure("blocks_freed_early", request=request, t_ns=t_ns).value == count
            assert run.measure("has_blocks_freed_while_it_runs", request=request, t_ns=t_ns).value == bool(count)
            assert run.measure("blocks_of_request", request=request, t_ns=t_ns).value == sum(map(len, held[request]))
            seen += count
    assert seen > 50


@pytest.mark.slow
def test_each_group_has_a_band_in_which_freed_places_are_outlines(run, pool):
    seen = {"held": 0, "freed": 0, "empty": 0}
    groups, ground = pool.groups, LOOK(theme.GROUND)
    for step in np.linspace(0, len(run.trace.steps) - 1, 24).astype(int).tolist():
        t_ns = int(run.trace.steps.start_ns[step])
        held, freed = tables_after(step)
        picture, _ = draw(lambda canvas, t=t_ns: pool.paint_tables(canvas, BOX, t), SIZE)
        for row, occupant in zip(pool.rows_of(BOX), run.timeline.at(t_ns).occupancy, strict=True):
            if occupant is None:
                continue
            for group, band in enumerate(groups.bands(pool.table_of(row))):
                for place, cell in groups.cells(band, groups.longest).items():
                    inside = pixel(picture, cell.x + cell.w - 8, cell.y + cell.h / 2)
                    edge = [pixel(picture, cell.x + cell.w / 2, cell.y + down) for down in (0.5, 1.5, 2.5)]
                    if place in held[occupant.request][group]:
                        kind = "held"
                        assert not near(inside, ground), (step, group, place)
                    elif place in freed[occupant.request][group]:
                        kind = "freed"
                        assert near(inside, ground), (step, group, place)
                        assert not all(near(spot, ground) for spot in edge), (step, group, place)
                    else:
                        kind = "empty"
                        assert near(inside, ground), (step, group, place)
                        assert all(near(spot, ground) for spot in edge), (step, group, place)
                    seen[kind] += 1
    assert min(seen.values()) > 20, seen


def test_the_pool_shows_the_blocks_of_all_groups(run, pool):
    seen = {True: 0, False: 0}
    for step in (0, 8, 16, 44, 54, 80):
        t_ns = int(run.trace.steps.start_ns[step])
        holders = {block for tables in tables_after(step)[0].values() for table in tables for block in table.values()}
        picture, _ = draw(lambda canvas, t=t_ns: pool.paint_pool(canvas, BOX, t), SIZE)
        free = LOOK(theme.mix(theme.GROUND, theme.LINE, 0.5))
        for block, cell in enumerate(pool.cells(BOX)):
            fill = pool.fill_of(cell)
            assert near(pixel(picture, fill.right - 5, fill.y + 3), free) == (block not in holders), (step, block)
            seen[block in holders] += 1
    assert min(seen.values()) > 20, seen


def test_an_engines_own_word_for_a_group_leaves_room_for_its_bands(run):
    header = msgspec.structs.replace(run.trace.header, kv_groups=[KvGroup(kind="W" * 200), KvGroup(kind="full")])
    groups = GroupTables(Run(replace(run.trace, header=header)), Phrasebook())
    for band in groups.bands(Box(0, 0, 700, 90)):
        assert band.w >= 0.6 * 700 - 1


def test_no_band_or_word_lies_on_another(pool):
    groups = pool.groups
    for high in (200, 420, 640, 1000):
        rows = pool.rows_of(Box(40, 40, 700, high))
        for row in rows:
            table = pool.table_of(row)
            assert table.h >= groups.least_height - 1 or len(rows) == 1
            bands = groups.bands(table)
            assert len(bands) == 6
            for above, below in pairwise(bands):
                assert above.bottom < below.y
            assert bands[0].y >= row.y - 0.01
            assert bands[-1].bottom <= row.bottom + 0.01
            assert bands[0].x > table.x


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES)
def test_the_scene_is_laid_out(settings, shape):
    laid_out("kv_cache_paging", SIZES[shape], settings=settings)


def test_what_is_said_of_groups_is_in_the_trace(run, settings):
    show = Show(settings, SIZE)
    (beat,) = storyboard("kv_cache_paging", show)
    captions = [caption.phrase for caption in beat.captions]
    stated = {each.key.partition(".")[2]: phrase for phrase in captions for each in phrase.stated}
    assert [f.source.value for f in stated["pool_of_groups"].figures] == [60, 6]
    assert [f.source.value for f in stated["frees"].figures] == ["R3", 5]
    assert "preempted" not in stated, "it is not recorded how many blocks were needed"
    release = first_release(run.timeline, 0)
    assert (release.request, release.at_ns) == (2, int(run.trace.steps.start_ns[16]))
    words = []
    BeatFrames(beat, show, note=lambda phrase, text: words.append(text)).at(beat.clock.film_s / 2)
    slots = run.trace.header.slots
    assert words.count("sliding window") == words.count("full attention") == slots
    assert [run.measure("has_kv_group_of_kind", kind=kind).value for kind in ("full", "mamba")] == [1, 0]
    assert [run.measure("kv_group_kind", group=i).value for i in (0, 5)] == ["sliding_window", "full"]


def test_nothing_is_said_of_groups_where_there_are_none():
    show = Show(Settings(device="cpu"), SIZE)
    (beat,) = storyboard("kv_cache_paging", show)
    words = []
    BeatFrames(beat, show, note=lambda phrase, text: words.append(text)).at(beat.clock.film_s / 2)
    assert beat.picture.__self__.picture.pool.groups is None
    assert words
    assert show.say.say("kv_cache_paging.freed").text not in words
    stated = {each.key for caption in beat.captions for each in caption.phrase.stated}
    assert "kv_cache_paging.pool" in stated
    assert not stated & {"kv_cache_paging.pool_of_groups", "kv_cache_paging.frees"}


def test_a_square_frame_shows_every_slots_tables_in_two_columns(settings):
    board = Storyboard(Show(settings, (1080, 1080)))
    _, tables, _ = board.picture.places()
    rows = board.picture.pool.rows_of(tables)
    assert len(rows) == board.run.trace.header.slots == 4
    for one, other in combinations(rows, 2):
        assert one.right < other.x or one.bottom < other.y
    groups = board.picture.pool.groups
    for row in rows:
        bands = groups.bands(board.picture.pool.table_of(row))
        assert all(
            band.x - bands[0].x == 0 and tables.x < band.x and band.right <= tables.right + 0.01 for band in bands
        )
        assert all(
            width(word.text, SMALL) + 16 <= bands[0].x - board.picture.pool.table_of(row).x for word in groups.words
        )


def test_a_block_that_nothing_is_written_into_has_none_of_its_holders_own_colour(run, pool):
    first_ns = int(run.trace.steps.start_ns[0]) + 1
    occupant = run.timeline.at(first_ns).occupancy[0]
    assert occupant.computed_tokens == 0
    colour, box = pool.colours[occupant.request], Box(40, 40, 1200, pool.groups.least_height + 20)
    tables = run.timeline.at(first_ns).group_tables(occupant.request)
    assert any(tables)
    picture, _ = draw(lambda canvas: pool.groups.paint(canvas, box, occupant, first_ns, colour), SIZE)
    assert (np.abs(picture / 255 - LOOK(colour)).max(axis=2) > 0.03).all()
