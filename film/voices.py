"""Who reads a film's captions aloud: espeak-ng, or piper with a voice model of the user's; both run as programs.

Knows programs, model files and WAV. Does not know films.
"""

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

Mono = npt.NDArray[np.float32]
"""Shape (samples,), -1 to 1."""

ESPEAK = "espeak-ng"
PIPER = "piper:"
_ESPEAKS = (ESPEAK, "espeak")
_WORDS_A_MINUTE = 165
_LIMIT_S = 120.0
"""What reading one caption may take: piper loads its model each time."""
_LARGEST = 64 << 20
"""The most bytes a program may write for one caption: minutes of speech."""
_LARGEST_CONFIG = 4 << 20
_LONGEST_NAME = 200
_RATES = (4_000, 192_000)


class SoundError(Exception):
    """The sound cannot be made; the message is one line."""


class _Language(msgspec.Struct, frozen=True):
    family: str | None = None


class _Inference(msgspec.Struct, frozen=True):
    length_scale: float = 1.0


class _Config(msgspec.Struct, frozen=True):
    """What is read of a piper model's MODEL.onnx.json: its language, and how long it makes its sounds."""

    language: _Language = _Language()
    inference: _Inference = _Inference()


@dataclass(frozen=True)
class Voice:
    """Who reads: piper with the model of that file, its MODEL.onnx.json next to it, or espeak-ng where it is None."""

    model: Path | None = None

    @classmethod
    def read(cls, text: str) -> "Voice":
        """From `espeak-ng` or `piper:MODEL.onnx`. Raises SoundError where a file is missing or cannot be used."""
        if text == ESPEAK:
            return cls()
        if not text.startswith(PIPER) or text == PIPER:
            raise SoundError(f"{text[:80]!r} is neither {ESPEAK} nor {PIPER}MODEL.onnx")
        model = text.removeprefix(PIPER)
        # A shell expands ~ at the beginning of a word alone.
        voice = cls(Path(model).expanduser() if model.startswith("~/") else Path(model))
        for path in voice.files:
            if path.is_dir():
                raise SoundError(f"{path}: is a folder; a voice is a file MODEL.onnx, with MODEL.onnx.json next to it")
            if not path.is_file():
                raise SoundError(f"{path}: no such file; a voice is a file MODEL.onnx, with MODEL.onnx.json next to it")
        name = voice.files[0].name
        if not name.isprintable() or ":" in name or len(name) > _LONGEST_NAME:
            raise SoundError(f"{name[:80]!r}: a voice's name has up to {_LONGEST_NAME} printable characters and no ':'")
        _ = voice._config, voice.fact
        return voice

    @property
    def files(self) -> tuple[Path, ...]:
        """The files it rests on."""
        return () if self.model is None else (self.model, self.model.with_name(f"{self.model.name}.json"))

    @cached_property
    def fact(self) -> str:
        """What a film says of it: espeak-ng, or `piper:NAME:DIGEST`, the SHA-256 (hex) of its two files' digests."""
        if self.model is None:
            return ESPEAK
        digest = hashlib.sha256()
        for path in self.files:
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise SoundError(f"{path}: {error.strerror}") from None
        return f"{PIPER}{self.model.name}:{digest.hexdigest()}"

    @cached_property
    def _config(self) -> _Config:
        path = self.files[1] if self.files else None
        if path is None:
            return _Config()
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST_CONFIG + 1)
            if len(data) > _LARGEST_CONFIG:
                raise SoundError(f"{path}: is over {_LARGEST_CONFIG >> 20} MiB; no voice's settings are")
            config = msgspec.json.decode(data, type=_Config)
        except OSError as error:
            raise SoundError(f"{path}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise SoundError(f"{path}: is not a piper voice's settings ({error})") from None
        if not 0.1 <= config.inference.length_scale <= 10:
            raise SoundError(f"{path}: inference.length_scale: {config.inference.length_scale:g} is not from 0.1 to 10")
        return config

    def ready(self, language: str) -> None:
        """Raises SoundError where its program is not installed, or its model speaks another language."""
        self._program()
        spoken = self._config.language.family
        if spoken is not None and spoken != language:
            raise SoundError(f"{self.model}: speaks {spoken[:20]!r}, the film's words are {language!r}")

    def say(self, text: str, language: str, pace: float) -> tuple[Mono, int]:
        """A text read aloud, `pace` times as fast as usual, and its samples a second. Raises SoundError."""
        program = self._program()
        with tempfile.TemporaryDirectory(prefix="tracereel-voice-") as folder:
            said = Path(folder) / "said.wav"
            if self.model is None:
                name = {"zh": "cmn"}.get(language, language)
                options = ["--stdout", "--stdin", "-v", name, "-s", str(round(_WORDS_A_MINUTE * pace))]
            else:
                options = self._piper_options(pace, said)
            # The text goes in as standard input: nothing in it can be an option.
            printed = _run([*program, *options], " ".join(text.split()) + "\n", Path(folder))
            return _samples(program[-1], printed if self.model is None else said)

    def _piper_options(self, pace: float, said: Path) -> list[str]:
        # Without noise it reads a text the same each time: `verify` compares the sound.
        scales = ["--length_scale", f"{self._config.inference.length_scale / pace:.4f}"]
        scales += ["--noise_scale", "0", "--noise_w", "0"]
        return ["--model", os.path.abspath(str(self.model)), "--output_file", str(said), *scales]

    def _program(self) -> list[str]:
        """The command that is installed. Raises SoundError where none is."""
        if self.model is None:
            for name in _ESPEAKS:
                if found := shutil.which(name):
                    return [os.path.abspath(found)]
            raise SoundError("no voice engine is installed; install espeak-ng, or render without narration")
        if found := shutil.which("piper"):
            return [os.path.abspath(found)]
        package = importlib.util.find_spec("piper")
        if package is not None and package.origin is not None:  # a folder of that name is no package
            return [sys.executable, "-m", "piper"]
        raise SoundError("piper is not installed; put its program on PATH, or: pip install piper-tts")


def _run(command: list[str], text: str, folder: Path) -> Path:
    """Run a program in a folder of its own, with bounded time and output; the file of what it printed.

    Raises SoundError where it fails or exceeds a bound.
    """
    words, printed, errors = (folder / name for name in ("words.txt", "printed", "errors"))
    words.write_text(text, encoding="utf-8")
    name, until = "piper" if "-m" in command[1:2] else Path(command[0]).name, time.monotonic() + _LIMIT_S
    with words.open("rb") as given, printed.open("wb") as out, errors.open("wb") as err:
        try:
            process = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, cwd=folder)
        except OSError as error:
            raise SoundError(f"{command[0]}: {error.strerror}") from None
        try:
            while process.poll() is None:
                if _written(folder) > _LARGEST:
                    raise SoundError(f"{name} wrote over {_LARGEST >> 20} MiB for one caption")
                if time.monotonic() > until:
                    raise SoundError(f"{name} did not read a caption within {_LIMIT_S:g} s")
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise SoundError(f"{name} cannot read the captions (exit code {process.returncode}): {_last_words(errors)}")
    return printed


def _written(folder: Path) -> int:
    """The bytes of the files in a folder, of which some may just be removed."""
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _last_words(path: Path) -> str:
    """The end of what a program said went wrong, as one line."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2_000, 0))
        return " ".join(file.read(2_000).decode(errors="replace").split())[-200:]


def _samples(program: str, path: Path) -> tuple[Mono, int]:
    """The samples of a WAV file that a program wrote, and how many there are in a second."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SoundError(f"{Path(program).name} wrote over {_LARGEST >> 20} MiB for one caption")
        with wave.open(io.BytesIO(path.read_bytes())) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            # A pipe's header does not know the length.
            data = file.readframes(2**30)
    except (OSError, EOFError, wave.Error):
        raise SoundError(f"{Path(program).name} wrote no sound that can be read (WAV)") from None
    if width != 2 or channels not in (1, 2) or not _RATES[0] <= rate <= _RATES[1]:
        raise SoundError(
            f"{Path(program).name} wrote {8 * width} bits, {channels} channels, {rate} Hz: not 16-bit sound"
        )
    whole = data[: len(data) // (2 * channels) * 2 * channels]
    samples = np.frombuffer(whole, dtype="<i2").reshape(-1, channels).mean(axis=1) / 2**15
    return samples.astype(np.float32), rate
