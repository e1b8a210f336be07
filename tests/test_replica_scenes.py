"""A merged trace in the pipeline: its replicas one above the other, each with its own slots and its own steps."""

import msgspec
import pytest
from drawing import LOOK, SCALE, SIZE, colour_at, draw, near
from fakes import header, make_engine
from films import SIZES, laid_out
from suites import prompts
from tracereel.engine.config import EngineConfig
from tracereel.film import theme
from tracereel.film.clock import Script
from tracereel.film.colours import RequestColours
from tracereel.film.components.pipeline import FLASH_S, PipelineView
from tracereel.film.layout import Kind
from tracereel.film.phrases import Phrasebook
from tracereel.film.stage import Stage
from tracereel.trace.analysis.queries import Run
from tracereel.trace.export.merge import merge
from tracereel.trace.format.events import ParallelInfo
from tracereel.trace.format.recorder import Recorder
from tracereel.trace.recordings.index import ENVIRONMENT

CONFIG = EngineConfig(max_num_seqs=3, max_num_batched_tokens=24, num_blocks=60, block_size=4, max_model_len=64)


@pytest.fixture(scope="module", params=[2, 5])
def merged(tmp_path_factory, request):
    """Engines that took turns with the steps, and shared the requests."""
    folder, replicas = tmp_path_factory.mktemp("replicas"), request.param
    paths = [folder / f"{i}.jsonl" for i in range(replicas)]
    headers = [
        msgspec.structs.replace(header(CONFIG), parallel=ParallelInfo(data=replicas, replica=i))
        for i in range(replicas)
    ]
    recorders = [Recorder(path, header) for path, header in zip(paths, headers, strict=True)]
    engines = [make_engine(CONFIG, recorder) for recorder in recorders]
    for i, asked in enumerate(prompts(8 * replicas)):
        engines[i % replicas].add(asked)
    while any(engine.has_work for engine in engines):
        for engine in engines:
            engine.step()
    for recorder in recorders:
        recorder.close()
    out = tmp_path_factory.mktemp("merged")
    merge(paths, out / "run.jsonl")
    return out


@pytest.mark.slow
@pytest.mark.parametrize("shape", SIZES)
def test_replicas_are_laid_out_one_above_the_other(merged, shape, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(merged))
    _, frames = laid_out("pipeline_flow", SIZES[shape])
    said = {thing.name for drawn in frames for thing in drawn if thing.kind is Kind.TEXT}
    assert {"replica 0", "replica 1"} <= said


@pytest.mark.long
def test_each_replica_has_its_own_lanes_and_its_own_steps(merged):
    run = Run.read(merged / "run.jsonl")
    colours = RequestColours([run.trace])
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 400.0).clock()
    view = PipelineView(run, clock, Stage.of_pixels(*SIZE), Phrasebook(), colours)
    places, parts = view.places, run.trace.header.replicas
    starts = [sum(part.slots for part in parts[:i]) for i in range(len(parts))]
    # Each replica that has room has as many slots with words as the others.
    shown = [[slot for slot in range(s, s + 3) if slot in places.slots and places.slots[slot].lettered] for s in starts]
    assert len({len(slots) for slots in shown[: len(places.rings)]}) == 1
    seated = lit = dark = 0
    steps = run.trace.steps
    just_ended = [clock.film_second(int(end_ns)) + 0.05 for end_ns in steps.end_ns[4:-4:3]]
    for film_s in [*(i * 2.5 + 5 for i in range(60)), *just_ended]:
        t_ns = clock.engine_ns(film_s)
        occupancy = run.timeline.at(t_ns).occupancy
        picture, _ = draw(lambda canvas, s=film_s: view.paint(canvas, s), SIZE)
        for slot, occupant in enumerate(occupancy):
            slot_place = places.slots.get(slot)
            if slot_place is not None and occupant is not None and not occupant.prefill:
                box = slot_place.decode
                seen = colour_at(
                    picture, (box.x + (4 if slot_place.lettered else box.w / 2)) * SCALE, (box.y + box.h / 2) * SCALE
                )
                assert near(seen, LOOK(colours[occupant.request])), (film_s, slot)
                seated += 1
        for i, ring in enumerate(places.rings):
            own = steps.end_ns[(steps.replica == i) & (steps.end_ns <= t_ns)]
            age = film_s - clock.film_second(int(own.max())) if len(own) else FLASH_S
            seen = colour_at(picture, (ring.x + ring.w / 2) * SCALE, ring.y * SCALE)
            if age < 0.25 * FLASH_S and any(occupancy):
                assert seen[1] > 1.3 * LOOK(theme.LINE)[1], (film_s, i)  # towards DECODE's colour
                lit += 1
            elif age >= FLASH_S:
                assert seen[1] <= LOOK(theme.LINE)[1], (film_s, i)
                dark += 1
    assert seated > 60
    assert lit > 3
    assert dark > 10


def test_who_sat_in_a_slot_without_a_row_is_among_the_finished(merged):
    run = Run.read(merged / "run.jsonl")
    colours = RequestColours([run.trace])
    clock = Script(run.timeline.begin_ns).run(run.timeline.end_ns, 60.0).hold(2.0).clock()
    view = PipelineView(run, clock, Stage.of_pixels(*SIZE), Phrasebook(), colours)
    picture, _ = draw(lambda canvas: view.paint(canvas, 62.0), SIZE)
    order, places = run.timeline.ended_order, view.places
    assert len(order) == len(run.trace.arrivals)
    first = max(0, len(order) - places.chips)
    for rank, request in enumerate(order[first:]):
        box = places.ended_at(rank)
        seen = colour_at(picture, (box.x + box.w / 2) * SCALE, (box.bottom - 2.5) * SCALE)
        assert near(seen, LOOK(colours[request])), request
    residencies = run.trace.residencies
    hidden = {
        int(residencies.request[i])
        for i in range(len(residencies.request))
        if int(residencies.slot[i]) not in places.slots
    }
    assert bool(hidden & set(order[first:])) == (len(places.slots) < run.trace.header.slots)
