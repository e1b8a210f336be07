"""Which recordings are re-recorded: those that the engine, the model and the suite of now would make otherwise."""

import pytest
from tracereel.cli.main import main
from tracereel.engine.model_config import ModelConfig, rotary_frequencies
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

SUITE = """
name = "own"
prompts = "p.jsonl"
repeats = 2
[engine]
max_num_seqs = 2
[[case]]
name = "static"
policy = "static"
[[case]]
name = "online"
policy = "continuous"
repeats = 1
arrivals = { kind = "fixed", rate = 500.0 }
"""


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    """A model that is small enough to be loaded a dozen times."""
    small = ModelConfig("llama", 2, 48, 4, 2, 16, 80, 300, 4096, 1e-6, rotary_frequencies(16, 1e4), True)
    monkeypatch.setitem(MODEL_CONFIGS, "Tiny", small)


NAMES = ["online-1.jsonl.zst", "static-1.jsonl.zst", "static-2.jsonl.zst"]


@pytest.mark.slow
def test_only_what_is_stale_is_recorded_anew(capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"id": "a", "prompt": "Hello", "output_tokens": 5}\n{"id": "b", "prompt": "Hi", "output_tokens": 3}\n'
    )
    suite, folder = tmp_path / "own.toml", tmp_path / "out"
    suite.write_text(SUITE)

    def record(*more: str) -> tuple[int, str, str]:
        arguments = ["record", "--suite", str(suite), "--out", str(folder), "--model", "random:tiny", *more]
        code = main([*arguments, "--device", "cpu", "--dtype", "fp32"])
        return code, *capsys.readouterr()

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    code, out, err = record()
    assert code == 0, err
    assert "3 of 3 recordings stale: there is none" in err
    assert list(files()) == NAMES
    assert "new against old" not in out

    # Nothing is stale.
    before = files()
    code, out, err = record()
    assert (code, out) == (0, "")
    assert "all 3 recordings are of this engine, model and suite" in err
    assert files() == before

    # One is lost, and something of somebody else's lies there: that one alone is made, the rest is left as it is.
    (folder / "static-2.jsonl.zst").unlink()
    (folder / "notes.txt").write_text("mine")
    code, _, err = record("--dry-run")
    assert code == 1
    assert "1 of 3 recordings stale: there is none" in err
    assert "static-2.jsonl.zst" not in files()
    code, out, err = record()
    assert code == 0
    assert out.splitlines() == [str(folder / "static-2.jsonl.zst")]
    assert "the other 2 stay" in err
    assert {name: files()[name] for name in NAMES[:2]} == {name: before[name] for name in NAMES[:2]}
    assert files()["notes.txt"] == b"mine"

    # A setting changes and a repeat goes.
    suite.write_text(SUITE.replace("max_num_seqs = 2", "max_num_seqs = 1").replace("repeats = 2", "repeats = 1"))
    code, out, err = record()
    assert code == 0, err
    assert "1 of 2 recordings stale: run.repeats is 2, now 1, and 1 more" in err
    assert "1 of 2 recordings stale: slots is 2, now 1" in err
    assert "static: new against old" in out
    assert "the schedules part at step 0" in out
    assert list(files()) == ["notes.txt", *NAMES[:2]]

    # All of it.
    code, out, err = record("--all")
    assert code == 0
    assert "no recording is stale; all 2 are re-recorded" in err
    assert "the schedules are the same, step by step" in out


def test_a_dry_run_makes_no_cache_and_no_runner(capsys, tmp_path, monkeypatch):
    from tracereel.engine import layer_ops, loading

    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hello", "output_tokens": 2}\n')
    (tmp_path / "own.toml").write_text(SUITE)
    made = []
    for cls in (layer_ops.NativeLayerOps, layer_ops.TorchLayerOps):
        monkeypatch.setattr(cls, "allocate", lambda self, blocks: made.append(blocks))
    for name in ("ModelRunner", "DeviceRunner"):
        monkeypatch.setattr(loading, name, lambda *args, name=name: made.append(name))
    arguments = ["record", "--suite", str(tmp_path / "own.toml"), "--out", str(tmp_path / "out")]
    arguments += ["--model", "random:tiny", "--device", "cpu", "--dtype", "fp32", "--dry-run"]
    assert main(arguments) == 1
    assert "3 of 3 recordings stale" in capsys.readouterr().err
    assert made == []


def test_the_engines_source_is_named_first(capsys, tmp_path, monkeypatch):
    from tracereel.engine import loading

    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hello", "output_tokens": 2}\n')
    (tmp_path / "own.toml").write_text(SUITE.replace("repeats = 2", "repeats = 1"))
    arguments = ["record", "--suite", str(tmp_path / "own.toml"), "--out", str(tmp_path / "out")]
    arguments += ["--model", "random:tiny", "--device", "cpu", "--dtype", "fp32"]
    assert main(arguments) == 0
    capsys.readouterr()
    changed = loading.engine_info()
    from msgspec.structs import replace

    monkeypatch.setattr(loading, "engine_info", lambda: replace(changed, source_digest="0" * 64))
    assert main([*arguments, "--dry-run"]) == 1
    assert "2 of 2 recordings stale: engine.source_digest is" in capsys.readouterr().err
