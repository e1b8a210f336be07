"""Damaged workload, suite, brand and prompt files."""

import json
from pathlib import Path

from confined import run_command
from mutations import TEXT_MUTATIONS

from campaign_parts.trial import EARLIER, SMALL, TINY_MODEL, Trial, Trials, prompts, recordings_into, rng_of

SYNTHETIC = """requests = 12
seed = 3
arrivals = { kind = "poisson", rate = 4.0 }
prompt_tokens = { kind = "lognormal", mean = 20, sigma = 0.6, max = 80 }
output_tokens = { kind = "geometric", mean = 6, max = 20 }
"""
SUITE = """name = "own"
prompts = "prompts.jsonl"
repeats = 2
copies = 2
[engine]
max_num_seqs = 4
[[case]]
name = "continuous"
policy = "continuous"
arrivals = { kind = "bursts", rate = 4.0, burst = 2 }
[[case]]
name = "static"
policy = "static"
engine = { num_blocks = 128 }
"""
BRAND = """title = "Batches, measured"
claim = "What was measured"
end = ["Thank you", "for watching"]
accent = "#4fd3ee"
theme = "dark"
url = "https://our.example/film"
"""
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:17:{i:02d}.9799600,{20 + 7 * i},{3 + i}\n" for i in range(8)
)


def _lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


MOONCAKE = _lines(
    [{"timestamp": 27 * i, "input_length": 600, "output_length": 4, "hash_ids": [0, 1 + i]} for i in range(6)]
)
BAILIAN = _lines(
    [
        {
            "chat_id": i,
            "parent_chat_id": -1,
            "timestamp": 0.5 * i,
            "input_length": 40,
            "output_length": 3,
            "type": "text",
            "turn": 1,
            "hash_ids": [1, 2, 3 + i],
        }
        for i in range(6)
    ]
)
SHAREGPT = json.dumps(
    [
        {"id": f"c{i}", "conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "well, hello"}]}
        for i in range(4)
    ]
)
KINDS = {
    "synthetic.toml": SYNTHETIC,
    "suite.toml": SUITE,
    "brand.toml": BRAND,
    "prompts.jsonl": prompts(6),
    "azure.csv": AZURE,
    "mooncake.jsonl": MOONCAKE,
    "bailian.jsonl": BAILIAN,
    "sharegpt.json": SHAREGPT,
}
RECORD = ("--limit", "6", "--time-scale", "1e-9", "--max-model-len", "128", *TINY_MODEL)


def trials(numbers: range, seed: int, folder: Path) -> Trials:
    """Files of these numbers, each through the command that reads it."""
    recordings_into(folder / "recordings")
    for number in numbers:
        rng = rng_of(seed, "files", number)
        name = rng.choice(list(KINDS))
        path, out = folder / name, folder / "out.jsonl"
        path.write_bytes(rng.choice(TEXT_MUTATIONS)(rng, KINDS[name].encode()))
        (folder / "prompts.jsonl").write_text(prompts(6)) if name == "suite.toml" else None
        out.write_bytes(EARLIER)
        trial = Trial(f"files {seed}/{number}", (path,))
        if name == "suite.toml":
            trial.note(run_command("record", "--suite", path, "--dry-run", *TINY_MODEL, "--out", folder / "suite"))
        elif name == "brand.toml":
            media = ("--recordings", folder / "recordings", "--media", folder / "media")
            outcome = trial.note(run_command("render", "opening", "--brand", path, *SMALL, *media), 0, 2)
            if outcome.code == 0:
                film = outcome.out.splitlines()[-1]
                trial.note(run_command("verify", film, "--trace", folder / "recordings", "--brand", path), 0)
        else:
            outcome = trial.note(run_command("record", "--workload", path, "--out", out, *RECORD), 0, 2)
            if outcome.code == 0:
                trial.note(run_command("check", out), 0)
            else:
                trial.expect(out.read_bytes() == EARLIER, "the earlier recording is lost")
        yield trial
