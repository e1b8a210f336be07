"""Damaged ledgers and pages through `verify`."""

import json
import random
from pathlib import Path
from typing import Any

import zstandard
from confined import run_command
from mutations import MUTATIONS, WRONG_VALUES
from tracereel.film.ledger import LEDGER_DIGEST, digest_of, ledger_path
from tracereel.film.provenance import read_stamp, stamp

from campaign_parts.trial import Trial, Trials, must, recordings_into, rendered, rng_of

SCENES = ("opening", "latency", "kv_cache_paging", "decode_batching")
ODD_VALUES = (
    *WRONG_VALUES,
    *(".999999999f", "999999999d", ",.2f", "%s", "{}", "throughput_ratio_median", "slots", "tokens_at", "0" * 64),
    *(10**15, -(10**15), 1e308, [0] * 1000, {"t_ns": 10**30}, {"request": -1}, {"numerator": 10**9}),
)


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Ledgers of these numbers: half of them with the film restamped, so that their claims are all that tells."""
    recordings_into(folder / "recordings")
    films = [rendered(scene, folder / "recordings", folder / "media") for scene in SCENES]
    ledgers = [ledger_path(film).read_bytes() for film in films]
    page = folder / "page.html"
    sources = sorted((folder / "recordings").glob("film-*-1.jsonl.zst"))[:2]
    played = [path for kind in ("film-[!e]*", "paging-*") for path in sorted((folder / "recordings").glob(kind))]
    must(run_command("play", *sources, "--out", page))
    whole_page = page.read_bytes()
    for number in numbers:
        rng = rng_of(seed, "ledgers", number)
        trial = Trial(f"ledgers {seed}/{number}")
        if rng.random() < 0.15:
            content = rng.choice(MUTATIONS)(rng, whole_page)
            page.write_bytes(content)
            trial.inputs = (page,)
            trial.note(run_command("verify", page, "--trace", *sources))
            yield trial
            continue
        film, whole = rng.choice(list(zip(films, ledgers, strict=True)))
        content = _damaged(rng, whole)
        ledger_path(film).write_bytes(content)
        stamped = rng.random() < 0.6
        if stamped:
            _restamp(film, content)
        trial.inputs = (ledger_path(film),)
        outcome = trial.note(run_command("verify", film, "--trace", *played))
        trial.expect(stamped or content == whole or outcome.code != 0, "a changed ledger is taken for the film's")
        yield trial
        ledger_path(film).write_bytes(whole)
        _restamp(film, whole)


def _damaged(rng: random.Random, whole: bytes) -> bytes:
    if rng.random() < 0.1:
        return rng.choice(MUTATIONS)(rng, whole)
    text = zstandard.ZstdDecompressor().stream_reader(whole).read()
    if rng.random() < 0.3:
        return zstandard.compress(rng.choice(MUTATIONS)(rng, text))
    lines = text.splitlines()
    for _ in range(rng.randint(1, 5)):
        i = rng.choice([0, rng.randrange(len(lines))])
        record = json.loads(lines[i])
        _put_wrong(rng, record)
        lines[i] = json.dumps(record).encode()
    return zstandard.compress(b"".join(line + b"\n" for line in lines))


def _put_wrong(rng: random.Random, place: Any) -> None:
    """Another value somewhere below."""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or rng.random() < 0.1:
            place[key] = rng.choice(ODD_VALUES)
            return
        place = place[key]


def _restamp(film: Path, content: bytes) -> None:
    """Have the film name this ledger as its own."""
    stamp(film, {**read_stamp(film), LEDGER_DIGEST: digest_of(content)})
