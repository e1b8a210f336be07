"""Who reads the captions: piper or espeak-ng, by stand-ins on PATH; a voice that is not there is one line."""

import json
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from tracereel.cli.main import main
from tracereel.film import voices
from tracereel.film.captions import Cue
from tracereel.film.provenance import read_stamp
from tracereel.film.recipe import Recipe, RecipeError
from tracereel.film.settings import Settings, SettingsError
from tracereel.film.sound import RATE, narration
from tracereel.film.voices import SoundError, Voice

STAND_IN = """
import json, math, os, sys, wave
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
text = sys.stdin.buffer.read().decode()
with open({log!r}, "a") as log:
    log.write(json.dumps([given, text]) + "\\n")
tone = int.from_bytes(open(given["--model"], "rb").read()[:1], "big") * 8
seconds = 0.02 * len(text) * float(given["--length_scale"])
with wave.open(given["--output_file"], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    wave = (round(9000 * math.sin(2 * math.pi * tone * i / 16000)) for i in range(round(16000 * seconds)))
    file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in wave))
print(given["--output_file"])
"""


def program(folder, name, code):
    """An executable of that name that runs this Python code."""
    path = folder / name
    path.write_text(f"#!{sys.executable} -IS\n{code}")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder that is all of PATH; no package piper is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(voices.importlib.util, "find_spec", lambda name: None)
    return folder


@pytest.fixture
def log(path, tmp_path):
    """What a stand-in for piper, on PATH, was called with."""
    log = tmp_path / "calls"
    program(path, "piper", STAND_IN.format(log=str(log)))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def model_in(folder, name="mine.onnx", tone=b"2", **settings):
    """A piper model's two files."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tone)
    config = {"language": {"code": "en_US", "family": "en"}, "inference": {"length_scale": 1.2}, **settings}
    (folder / f"{name}.json").write_text(json.dumps(config))
    return folder / name


@pytest.fixture
def model(tmp_path):
    return model_in(tmp_path / "models")


def test_piper_reads_each_caption_from_its_second_on(log, model):
    cues = [Cue(0.5, 3.0, "--model /etc/passwd\nsays two lines"), Cue(3.0, 4.0, "the last one")]
    track = narration(Voice.read(f"piper:{model}"), cues, 4.0, "en")
    assert track.shape == (4 * RATE, 2)
    assert not track[: RATE // 2].any()
    assert np.abs(track[RATE // 2 : RATE]).max() > 0.2
    assert not track[int(1.8 * RATE) : 3 * RATE].any()
    calls = log()
    assert [text for _, text in calls] == ["--model /etc/passwd says two lines\n", "the last one\n"]
    for given, _ in calls:
        assert given["--model"] == str(model)
        assert (given["--length_scale"], given["--noise_scale"], given["--noise_w"]) == ("1.2000", "0", "0")
        assert not Path(given["--output_file"]).exists(), "nothing is left behind"


def test_piper_reads_faster_where_a_caption_is_short(log, model):
    narration(Voice.read(f"piper:{model}"), [Cue(0.0, 1.0, "x" * 49), Cue(1.0, 1.1, "y" * 49)], 2.0, "en")
    scales = [float(given["--length_scale"]) for given, _ in log()]
    assert scales == pytest.approx([1.2, 1.2 / (1.2 * 1.05), 1.2, 1.2 * 165 / 260], abs=1e-3)


def test_the_package_reads_where_there_is_no_program(path, model, tmp_path, monkeypatch):
    log, package = tmp_path / "calls", tmp_path / "site" / "piper"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN.format(log=str(log)))
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    samples, rate = Voice.read(f"piper:{model}").say("words", "en", 1.0)
    assert rate == 16_000
    assert np.abs(samples).max() > 0.2
    (package / "__init__.py").unlink()
    (package / "__main__.py").unlink()
    voices.importlib.invalidate_caches()
    with pytest.raises(SoundError, match="piper is not installed"):
        Voice.read(f"piper:{model}").ready("en")


def test_espeak_reads_by_its_own_options(path):
    code = 'import os, sys\nopen(os.environ["SEEN"], "w").write(" ".join(sys.argv[1:]) + "|" + sys.stdin.read())\n'
    code += (
        "import wave, io\nf = io.BytesIO()\nw = wave.open(f, 'wb')\nw.setparams((1, 2, 22050, 0, 'NONE', ''))\n"
        "w.writeframes(b'\\x00\\x40' * 2205)\nw.close()\nsys.stdout.buffer.write(f.getvalue())\n"
    )
    seen = path / "seen"
    program(path, "espeak-ng", code.replace('os.environ["SEEN"]', repr(str(seen))))
    track = narration(Voice.read("espeak-ng"), [Cue(0.0, 1.0, "字")], 1.0, "zh")
    assert seen.read_text() == "--stdout --stdin -v cmn -s 165|字\n"
    assert track[: RATE // 20].min() == pytest.approx(0.5)
    assert not track[RATE // 5 :].any()


def test_a_voice_that_is_not_installed_is_said(path, model):
    with pytest.raises(
        SoundError, match=r"^piper is not installed; put its program on PATH, or: pip install piper-tts$"
    ):
        Voice.read(f"piper:{model}").ready("en")
    with pytest.raises(SoundError, match="install espeak-ng, or render without narration"):
        Voice.read("espeak-ng").ready("en")


def test_a_voice_that_speaks_another_language_is_refused(log, model):
    with pytest.raises(SoundError, match=r"mine\.onnx: speaks 'en', the film's words are 'zh'"):
        Voice.read(f"piper:{model}").ready("zh")
    Voice.read(f"piper:{model_in(model.parent, 'other.onnx', language={})}").ready("zh")


BROKEN = {
    "fails": (
        "sys.stderr.write('so\\nit is'); sys.exit(3)",
        r"^piper cannot read the captions \(exit code 3\): so it is$",
    ),
    "writes nothing": ("pass", "^piper wrote no sound that can be read"),
    "writes no WAV": ("open(out, 'w').write('no')", "^piper wrote no sound that can be read"),
    "writes too much": (
        "\nwhile True: open(out, 'ab').write(bytes(1 << 20))",
        "^piper wrote over 1 MiB for one caption$",
    ),
    "prints too much": ("\nwhile True: print('x' * 9999)", "^piper wrote over 1 MiB for one caption$"),
    "does not end": ("import time; time.sleep(60)", "^piper did not read a caption within 0.5 s$"),
    "writes 8 bits": (
        "import wave as v; w = v.open(out, 'wb'); w.setparams((1, 1, 8000, 0, 'NONE', '')); w.writeframes(b'1')",
        "^piper wrote 8 bits, 1 channels, 8000 Hz: not 16-bit sound$",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_program_that_fails_or_goes_on_and_on_is_one_line(path, model, monkeypatch, how):
    code, said = BROKEN[how]
    monkeypatch.setattr(voices, "_LARGEST", 1 << 20)
    if how == "does not end":
        monkeypatch.setattr(voices, "_LIMIT_S", 0.5)
    program(path, "piper", f"import sys\nout = sys.argv[sys.argv.index('--output_file') + 1]\n{code}")
    began = time.monotonic()
    with pytest.raises(SoundError, match=said):
        Voice.read(f"piper:{model}").say("words", "en", 1.0)
    assert time.monotonic() - began < 20


def test_a_voices_files_are_looked_at_first(model, tmp_path):
    def refused(text):
        with pytest.raises(SettingsError) as error:
            Settings.read({"narration": "on", "voice": text})
        line = str(error.value)
        assert line.startswith("voice (--voice or $TRACEREEL_VOICE): ")
        assert "\n" not in line
        return line

    assert "'mbrola' is neither espeak-ng nor piper:MODEL.onnx" in refused("mbrola")
    assert "is neither" in refused("piper:")
    assert f"{tmp_path}/no.onnx: no such file" in refused(f"piper:{tmp_path}/no.onnx")
    assert f"{tmp_path}: is a folder" in refused(f"piper:{tmp_path}")
    settings = Path(f"{model}.json")
    for text in ("{", "[]", '{"inference": {"length_scale": 0}}', '{"language": 3}', "\udcff"):
        settings.write_bytes(text.encode(errors="surrogateescape"))
        assert f"{settings}: " in refused(f"piper:{model}")
    settings.unlink()
    assert f"{settings}: no such file" in refused(f"piper:{model}")
    settings.mkdir()
    assert f"{settings}: is a folder" in refused(f"piper:{model}")
    assert Settings.read({"voice": f"piper:{model}"}) == Settings(), "nobody reads a silent film"


def test_a_film_says_the_voices_name_and_digest(model):
    fact = Settings.read({"narration": "on", "voice": f"piper:{model}"}).facts["voice"]
    assert fact.startswith("piper:mine.onnx:")
    Path(f"{model}.json").write_text("{}")
    other = Settings.read({"narration": "on", "voice": f"piper:{model}"}).facts["voice"]
    assert other != fact, "its settings are part of a voice"
    assert "voice" not in Settings.read({"narration": "on"}).facts


def test_the_voice_of_a_recipe_is_untrusted():
    recipe = Recipe("any", "", (16, 16), 1.0, False, Settings().facts)
    voice = f"piper:x.onnx:{'0' * 64}"
    assert Recipe.read({**recipe.facts, "voice": voice}).settings["voice"] == voice
    for text in ("piper:x.onnx", f"piper:a\nb:{'0' * 64}", "espeak-ng", f"{voice}0"):
        with pytest.raises(RecipeError, match="is not piper, a model's name and its digest"):
            Recipe.read({**recipe.facts, "voice": text})


@pytest.mark.parametrize("command", ["render", "verify"])
def test_a_model_that_is_missing_is_one_line_and_exit_code_2(command, tmp_path, capsys):
    film = "decode_batching" if command == "render" else str(tmp_path / "film.mp4")
    assert main((command, film, "--voice", f"piper:{tmp_path}/no.onnx")) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "no.onnx: no such file" in err


def test_a_program_that_is_missing_is_one_line_and_exit_code_2(path, model, tmp_path, capsys):
    assert main(("render", "--all", "--voice", f"piper:{model}", "--media", str(tmp_path))) == 2
    assert capsys.readouterr() == (
        "",
        "tracereel: piper is not installed; put its program on PATH, or: pip install piper-tts\n",
    )


@pytest.mark.slow
def test_a_narrated_film_is_made_again_with_its_voice_alone(film_recordings, log, model, tmp_path, capsys):
    options = ("--from", "2.5", "--to", "2.6", "--slots", "0-1", "--fps", "2", "--size", "256x144")
    folders = ("--recordings", str(film_recordings), "--media", str(tmp_path))
    assert main(("render", "decode_batching", *options, *folders, "--voice", f"piper:{model}")) == 0
    film = Path(capsys.readouterr().out.splitlines()[-1])
    assert log(), "piper was asked"
    with av.open(str(film)) as container:
        assert len(container.streams.audio) == 1
    assert read_stamp(film)["voice"] == Voice.read(f"piper:{model}").fact

    def verified(*voice):
        code = main(("verify", str(film), "--trace", str(film_recordings), *voice))
        return code, capsys.readouterr().out

    code, out = verified("--voice", f"piper:{model}")
    assert (code, "0 fault(s)" in out) == (0, True), out
    others = model_in(tmp_path / "others", tone=b"3")
    for voice in ((), ("--voice", f"piper:{others}")):
        code, out = verified(*voice)
        assert (code, "1 fault(s)" in out) == (1, True), out
        assert "its sound was not compared: piper:mine.onnx:" in out
        assert "name its voice with --voice" in out
