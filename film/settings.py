"""What a render is asked for: recordings, device, palette, brand, language, captions, sound.

A value. `tracereel render` makes it from its options, plain `manim` from the environment. Knows files and names; draws
nothing.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from tracereel.film.phrases import CATALOGUES, Phrase, TypedDigitError, holds_number, words
from tracereel.film.theme import DARK, PALETTES, Palette, rgb_of
from tracereel.film.voices import ESPEAK, SoundError, Voice
from tracereel.film.window import Window
from tracereel.trace.format.toml_file import TomlFileError, read_toml

PREFIX = "TRACEREEL_"
ALLOW_BROKEN = "allow_broken"
VOICE = "voice"


class SettingsError(Exception):
    """A setting cannot be used; the message is one line."""


class BrandFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A brand file (TOML): each key may be left out.

    `title` and `claim` stand on the title card, `end` on the end card, a line each; they hold no number, for every
    number in a film is measured. `logo` is a PNG next to the file, `accent` a colour (#rrggbb), `theme` dark or light,
    `fonts` are files of further faces, `url` is what the QR code on the end card says.
    """

    title: str | None = None
    claim: str | None = None
    end: list[str] = []
    logo: str | None = None
    accent: str | None = None
    theme: str = DARK.name
    fonts: list[str] = []
    url: str | None = None


@dataclass(frozen=True)
class Brand:
    """A brand file's content, checked."""

    palette: Palette = DARK
    title: Phrase | None = None
    claim: Phrase | None = None
    end: tuple[Phrase, ...] = ()
    logo: Path | None = None
    fonts: tuple[Path, ...] = ()
    url: str | None = None
    files: tuple[Path, ...] = ()
    """Every file it rests on."""

    @property
    def address(self) -> Phrase | None:
        """The URL as it is lettered, short; None where there is none, or one that holds a number."""
        if self.url is None:
            return None
        short = self.url.partition("://")[2] or self.url
        return None if holds_number(short) else words(short.rstrip("/"))

    def with_theme(self, theme: str) -> "Brand":
        """The same brand on another theme's ground, with its own accent where it has one."""
        accent = self.palette.codes["accent"]
        own = accent != PALETTES[self.palette.name].codes["accent"]
        return replace(self, palette=PALETTES[theme].with_accent(accent) if own else PALETTES[theme])


def read_brand(path: Path) -> Brand:
    """Read a brand file. Raises SettingsError that names the file and the key."""

    def refuse(key: str, why: str) -> SettingsError:
        return SettingsError(f"{path}: {key}: {why}")

    try:
        file = read_toml(path, BrandFile)
    except TomlFileError as error:
        raise SettingsError(f"{path}: {error}") from None
    lines: dict[str, Phrase] = {}
    texts = {"title": file.title, "claim": file.claim, **{f"end {i}": text for i, text in enumerate(file.end)}}
    for key, text in texts.items():
        if text is None:
            continue
        if not text.isprintable() or not text.strip() or len(text) > _LONGEST:
            raise refuse(key.split()[0], f"one to {_LONGEST} printable characters, please")
        try:
            lines[key] = words(text)
        except TypedDigitError as error:
            raise refuse(key.split()[0], str(error)) from None
    if len(file.end) > _MOST_LINES:
        raise refuse("end", f"{len(file.end)} lines; at most {_MOST_LINES}")
    if file.theme not in PALETTES:
        raise refuse("theme", f"{file.theme!r} is not one of {', '.join(PALETTES)}")
    palette = PALETTES[file.theme]
    if file.accent is not None:
        if not re.fullmatch("#[0-9a-fA-F]{6}", file.accent):
            raise refuse("accent", f"{file.accent!r} is not a colour such as #4fd3ee")
        palette = palette.with_accent(file.accent)
        reached = contrast(palette, "accent", "ground")
        if reached < AA:
            raise refuse(
                "accent",
                f"{file.accent} has a contrast of {reached:.1f} on the {file.theme} ground; text needs {AA} (WCAG AA)",
            )
    beside = {name: path.parent / name for name in [*([file.logo] if file.logo else []), *file.fonts]}
    home = path.parent.resolve()
    for name, found in beside.items():
        if not found.resolve().is_relative_to(home):
            raise refuse(
                "logo" if name == file.logo else "fonts",
                f"{name!r} is outside the brand file's folder; copy it there",
            )
        if not found.is_file():
            raise refuse("logo" if name == file.logo else "fonts", f"{found}: no such file")
    if file.url is not None and (not file.url.isprintable() or len(file.url) > _LONGEST_URL):
        raise refuse("url", f"one to {_LONGEST_URL} printable characters, please")
    return Brand(
        palette,
        lines.get("title"),
        lines.get("claim"),
        tuple(line for key, line in lines.items() if key.startswith("end")),
        beside[file.logo] if file.logo else None,
        tuple(beside[name] for name in file.fonts),
        file.url,
        (path, *beside.values()),
    )


AA = 4.5
"""The contrast that WCAG 2.1 asks of text (level AA)."""
_LONGEST, _MOST_LINES, _LONGEST_URL = 80, 4, 300


def contrast(palette: Palette, one: str, other: str) -> float:
    """Contrast of two roles of a palette by WCAG 2.1, 1 to 21."""
    return contrast_of(rgb_of(palette.codes[one]), rgb_of(palette.codes[other]))


def contrast_of(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Contrast of two colours (sRGB, 0 to 1) by WCAG 2.1, 1 to 21."""
    dark, light = sorted(
        sum(
            weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for weight, c in zip((0.2126, 0.7152, 0.0722), colour, strict=True)
        )
        for colour in (one, other)
    )
    return (light + 0.05) / (dark + 0.05)


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    `captions`: are they lettered into the picture? `recordings` is a folder or a trace file, `device` leaves those of
    one device (`tracereel.trace.recordings.index` says what is played where they are None). `window` is the stretch of
    one run that is shown in place of a whole scene. `allow_broken`: are recordings played that do not hold what was
    recorded? Every frame of theirs says so. `voice` reads where there is `narration`.
    """

    brand: Brand = field(default_factory=Brand)
    language: str = "en"
    captions: bool = True
    sound: bool = False
    narration: bool = False
    fonts: tuple[Path, ...] = ()
    recordings: Path | None = None
    device: str | None = None
    window: Window | None = None
    allow_broken: bool = False
    voice: Voice = field(default_factory=Voice)

    @property
    def palette(self) -> Palette:
        """What colours look like."""
        return self.brand.palette

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a film depends on besides its recordings."""
        return *self.brand.files, *self.fonts

    @property
    def facts(self) -> dict[str, str]:
        """What a film depends on besides recordings and files, by name."""
        switches = {"captions": self.captions, "sound": self.sound, "narration": self.narration}
        colours = {"theme": self.palette.name, "accent": self.palette.codes["accent"]}
        unusual = dict(self.window.facts) if self.window else {}
        if self.allow_broken:
            unusual[ALLOW_BROKEN] = _SWITCH[True]
        if self.narration and self.voice.model is not None:
            unusual[VOICE] = self.voice.fact
        return {**colours, "language": self.language, **{name: _SWITCH[on] for name, on in switches.items()}, **unusual}

    @classmethod
    def read(cls, asked: Mapping[str, str]) -> "Settings":
        """From texts by name: brand, theme, language, captions, sound, narration, fonts, recordings, device.

        And run, from, to and slots, of a stretch; allow_broken; voice, of a narration. `fonts` are joined as in $PATH.
        Raises SettingsError that names the setting, and WindowError.
        """

        def refuse(name: str, text: str, wanted: str) -> SettingsError:
            return SettingsError(f"{name} (--{name} or ${PREFIX}{name.upper()}): {text!r} is {wanted}")

        def switch(name: str, default: bool) -> bool:
            text = asked.get(name) or _SWITCH[default]
            if text not in _SWITCH.values():
                raise refuse(name, text, "neither on nor off")
            return text == _SWITCH[True]

        narration = switch("narration", False)
        try:
            voice = Voice.read(asked.get(VOICE) or ESPEAK) if narration else Voice()
        except SoundError as error:
            raise SettingsError(f"{VOICE} (--{VOICE} or ${PREFIX}{VOICE.upper()}): {error}") from None
        brand = read_brand(Path(asked["brand"])) if asked.get("brand") else Brand()
        if theme := asked.get("theme"):
            if theme not in PALETTES:
                raise refuse("theme", theme, f"not one of {', '.join(PALETTES)}")
            brand = brand.with_theme(theme)
        language = asked.get("language") or "en"
        if language not in languages():
            raise refuse("language", language, f"not one of {', '.join(languages())}")
        return cls(
            brand,
            language,
            switch("captions", True),
            switch("sound", False),
            narration,
            tuple(Path(name) for name in asked.get("fonts", "").split(os.pathsep) if name),
            Path(asked["recordings"]) if asked.get("recordings") else None,
            asked.get("device") or None,
            Window.read(asked),
            switch(ALLOW_BROKEN, False),
            voice,
        )

    @classmethod
    def from_environment(cls, asked: Mapping[str, str] | None = None) -> "Settings":
        """From TRACEREEL_BRAND, _THEME, _LANGUAGE, _CAPTIONS, _SOUND, _NARRATION, _VOICE, _FONTS, _RECORDINGS, _DEVICE,
        and a window's _RUN, _FROM, _TO and _SLOTS.

        What was `asked` for goes before the environment. Raises SettingsError and
        WindowError.
        """
        there = {
            name.removeprefix(PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(PREFIX)
        }
        return cls.read({**there, **(asked or {})})


_SWITCH = {True: "on", False: "off"}


def languages() -> list[str]:
    """The languages there is a phrasebook of."""
    return sorted(path.stem for path in CATALOGUES.glob("*.toml"))
