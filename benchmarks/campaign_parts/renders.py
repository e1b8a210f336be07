"""Films of recordings of which one is damaged: true, or refused with the earlier film as it was."""

import random
import shutil
from pathlib import Path

import zstandard
from confined import run_command
from mutations import MUTATIONS, sealed
from tracereel.film.ledger import ledger_path
from tracereel.film.storyboards import names

from campaign_parts.trial import SMALL, Trial, Trials, left_behind, recordings_into, rendered, rng_of


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Renders of these numbers, each over a good film of the same scene."""
    whole = folder / "whole"
    files = recordings_into(whole)
    good: dict[str, Path] = {}
    for number in numbers:
        rng = rng_of(seed, "renders", number)
        scene = rng.choice(names())
        if scene not in good:
            good[scene] = rendered(scene, whole, folder / "good")
        recordings, media = folder / "recordings", folder / "media"
        for made in (recordings, media):
            shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(whole, recordings)
        shutil.copytree(folder / "good", media)
        film = media / good[scene].relative_to(folder / "good")
        damaged = recordings / rng.choice(files).name
        _damage(rng, damaged)
        trial = Trial(f"renders {seed}/{number} {scene}", (damaged,))
        before = film.read_bytes(), ledger_path(film).read_bytes()
        command = ["render", scene, "--recordings", recordings, "--media", media, *SMALL]
        outcome = trial.note(run_command(*command), 0, 2)
        if outcome.code == 0:
            trial.expect(outcome.out.splitlines()[-1:] == [str(film)], "another film is named")
            verdict = trial.note(run_command("verify", film, "--trace", recordings), 0, 2)
            # It reads every recording of the folder, also the damaged one that the scene does not play.
            trial.expect(verdict.code == 0 or damaged.name in verdict.err, verdict.err)
        else:
            trial.expect(before == (film.read_bytes(), ledger_path(film).read_bytes()), "the earlier film is torn")
        trial.expect(not (left := left_behind(media)), f"left behind: {sorted(left)}")
        yield trial


def _damage(rng: random.Random, path: Path) -> None:
    content = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
    content = rng.choice(MUTATIONS)(rng, content)
    if rng.random() < 0.8:
        content = sealed(content)
    path.write_bytes(content if content.startswith(b"\x28\xb5\x2f\xfd") else zstandard.compress(content))
