"""Comparable is what measured the same work on the same machine under the same settings, each run once."""

import dataclasses

import msgspec
import pytest
from tracereel.cli.main import main
from tracereel.film.settings import Settings
from tracereel.film.show import Show
from tracereel.film.storyboards import storyboard
from tracereel.trace.analysis.comparable import NotComparableError, require_comparable, require_same_work
from tracereel.trace.recordings.index import PACKAGE_RECORDINGS, Recording
from tracereel.trace.state.columns import Trace

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def pair(film_recordings) -> list[Trace]:
    return [Trace.read(film_recordings / f"{case}-1.jsonl.zst", tokens=False) for case in ("static", "continuous")]


def with_header(trace: Trace, **fields) -> Trace:
    return dataclasses.replace(trace, header=replace(trace.header, **fields))


OTHERS = {
    "device.threads": lambda h: {"device": replace(h.device, threads=96)},
    "workload.arrivals": lambda h: {"workload": replace(h.workload, arrivals="poisson, 6 requests/s")},
    "workload.seed": lambda h: {"workload": replace(h.workload, seed=7)},
    "slots": lambda h: {"slots": 16},
    "token_budget": lambda h: {"token_budget": 512},
    "kv_blocks": lambda h: {"kv_blocks": 30},
    "config.enable_prefix_caching": lambda h: {"config": {**h.config, "enable_prefix_caching": True}},
    "model.dtype": lambda h: {"model": replace(h.model, dtype="fp32")},
}


@pytest.mark.parametrize("field", OTHERS)
def test_what_differs_is_refused_by_its_name(field, pair):
    static, continuous = pair
    seeded = with_header(static, workload=replace(static.header.workload, seed=1))
    require_comparable([static, continuous])
    other = with_header(continuous, **OTHERS[field](continuous.header))
    with pytest.raises(NotComparableError, match=rf"differ in {field}: "):
        require_comparable([seeded, other])
    if field in ("slots", "token_budget", "kv_blocks") or field.startswith("config."):
        require_comparable([static, other], across=[field])
        require_same_work([static, other])
    else:
        with pytest.raises(NotComparableError, match=field):
            require_comparable([seeded, other], across=[field])


def test_fewer_requests_are_other_work(pair):
    static, continuous = pair
    fewer = dataclasses.replace(continuous, arrivals=continuous.arrivals[:24])
    with pytest.raises(NotComparableError, match="differ in number of requests: 48 and 24"):
        require_comparable([static, fewer])


def test_what_one_does_not_say_is_no_difference_and_another_engines_settings_are_its_own(pair):
    static, continuous = pair
    require_comparable([static, with_header(continuous, device=replace(continuous.header.device, threads=None))])
    engine = replace(continuous.header.engine, name="another")
    require_comparable([static, with_header(continuous, engine=engine, config={"attention": "its own"}, kv_blocks=7)])
    with pytest.raises(NotComparableError, match="differ in slots"):
        require_comparable([static, with_header(continuous, engine=engine, slots=7)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("two_of_eight", "static"),
        ("decode_batching", "static"),
        ("cut_out_the_red", "static"),
        ("throughput_comparison", "static"),
        ("latency", "static"),
        ("speedup_waterfall", "static"),
        ("kv_cache_paging", "no-prefix-caching"),
        ("chunked_prefill", "unchunked"),
        ("batch_size_sweep", "continuous-4"),
        ("engine_race", "transformers"),
    ],
)
def test_a_scene_of_several_runs_asks_whether_they_may_be_compared(name, case, monkeypatch):
    read, settings = Recording.read, Settings(device="cpu")
    assert storyboard(name, Show(settings, (854, 480)))

    def of_more_threads(recording, **options):
        trace = read(recording, **options)
        device = replace(trace.header.device, threads=96)
        return with_header(trace, device=device) if recording.case == case else trace

    monkeypatch.setattr(Recording, "read", of_more_threads)
    with pytest.raises(NotComparableError, match=r"device\.threads: (2 and 96|96 and 2)"):
        storyboard(name, Show(settings, (854, 480)))


def test_a_run_is_named_once(pair, film_recordings, capsys):
    with pytest.raises(NotComparableError, match="are the same run"):
        require_comparable([pair[0], pair[1], pair[0]])
    best, base = (str(film_recordings / f"{case}-1.jsonl.zst") for case in ("continuous", "static"))
    assert main(["compare", base, best, best]) == 2
    assert "are the same run; name each run once" in capsys.readouterr().err


def test_a_comparison_across_a_setting_says_so(capsys):
    folder = PACKAGE_RECORDINGS / "chunked" / "cpu"
    files = [str(folder / f"{case}-1.jsonl.zst") for case in ("unchunked", "chunked")]
    assert main(["compare", *files]) == 2
    assert "differ in token_budget: 2048 and 64" in (err := capsys.readouterr().err)
    assert "say --across token_budget" in err
    assert main(["compare", *files, "--across", "token_budget"]) == 0
    assert "they differ in token_budget: 2048 and 64" in capsys.readouterr().out
