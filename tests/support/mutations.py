"""Damage to files, by a seeded generator: to their bytes, their lines, and the values in their records."""

import hashlib
import json
import random
import re
from collections.abc import Callable

import zstandard

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def cut_out(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randint(1, 300) :]


def of_lines(change: Callable[[random.Random, list[bytes]], None]) -> Mutation:
    def mutate(rng: random.Random, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        for _ in range(rng.randint(1, 4)):
            change(rng, lines)
        return b"".join(lines)

    return mutate


def swap(rng: random.Random, lines: list[bytes]) -> None:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def duplicate(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def delete(rng: random.Random, lines: list[bytes]) -> None:
    del lines[rng.randrange(len(lines))]


WRONG_NUMBERS = (-1, 0, 1, 2**31 - 1, 2**31, 2**53, 2**62, 2**63, 2**64, 10**400, 1.5, -0.0, True, None)
WRONG_TEXTS = ("", "D", "PD" * 50, "\x1b[2J", "\ud800")
WRONG_ARRAYS = (
    [],
    {},
    [[]],
    [None],
    [-1],
    [2**31 - 1],
    [0] * 5000,
    {"request": 0},
    [{"request": 2**31 - 1, "slot": 0}],
)
WRONG_VALUES = (*WRONG_NUMBERS, *WRONG_TEXTS, *WRONG_ARRAYS)
PIECES = (b"99999999999999999999", b"1e999", b"-", b"null", b"NaN", b'"', b"\\", b"\0" * 9, b"\xff\xfe", b"\n\n", b"}{")


def wrong_value(rng: random.Random, lines: list[bytes]) -> None:
    """Another value in some place of a record, at any depth."""
    i = rng.randrange(len(lines))
    try:
        record = json.loads(lines[i])
    except ValueError:
        return
    place = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(place[key], dict | list) or rng.random() < 0.4:
            break
        place = place[key]
    place[key] = rng.choice(WRONG_VALUES)
    lines[i] = json.dumps(record).encode() + b"\n"


def nest(rng: random.Random, lines: list[bytes]) -> None:
    i = rng.randrange(len(lines))
    deep = rng.choice([b"[", b'{"a":']) * rng.choice([100, 10_000, 500_000])
    lines[i] = rng.choice([deep + b"\n", lines[i].rstrip()[:-1] + b',"deep":' + deep + b"\n"])


def insert(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(PIECES) + content[at:]


def compressed(mutate: Mutation) -> Mutation:
    """Damage the compressed bytes."""
    return lambda rng, content: mutate(rng, zstandard.compress(content))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    cut,
    cut_out,
    insert,
    *(of_lines(change) for change in (swap, duplicate, delete, wrong_value, wrong_value, nest)),
    *(compressed(damage) for damage in (flip_bits, cut, cut_out)),
)


def bomb(piece: bytes, start: bytes = b"") -> bytes:
    """A few kilobytes of zstd that expand to 256 MiB."""
    pack = zstandard.ZstdCompressor(level=1).compressobj()
    whole = piece * (2**24 // len(piece))
    return pack.compress(start) + b"".join(pack.compress(whole) for _ in range(16)) + pack.flush()


def bombs(content: bytes) -> list[bytes]:
    head = b"".join(content.splitlines(keepends=True)[:3])
    numbers = head + b'{"event":"step","index":0,"start_ns":1,"end_ns":2,"phases":"","waiting":0,"requests":['
    return [
        *(bomb(piece) for piece in (b" ", b"\n", b"[", b'{"a":')),
        *(bomb(piece, numbers) for piece in (b"0,", b"123456,", b'"",', b"[],")),
        *(bomb(piece, head) for piece in (b"\n", b'{"event":"finish","request":0,"at_ns":1,"reason":"abort"}\n')),
    ]


def sealed(content: bytes) -> bytes:
    """A damaged trace whose end record states the digest of what it now holds, as if it had been recorded so."""
    *lines, last = content.splitlines(keepends=True) or [b""]
    try:
        end = json.loads(last)
        end["digest"] = hashlib.sha256(b"".join(lines)).hexdigest()
    except (ValueError, TypeError, KeyError, RecursionError):
        return content
    return b"".join([*lines, json.dumps(end).encode(), b"\n"])


ODD_TEXTS = (
    *("0", "-1", "1e999", "9" * 5000, "1e-300", "0x10", "nan", "true", '""', "[]", "{}", "[" * 5000, "\x00", "\ud7ff"),
    *(" ", "\n", "=", "'", '"', "\\", "\u202e", "\x1b[2J", ",", "a.b.c.d = 1\n", "[[case]]\n", "\r\n", "x" * 20_000),
)


def odd_text(rng: random.Random, content: bytes) -> bytes:
    """Something odd in place of a word or a number, as in a file that a person wrote."""
    text = content.decode(errors="surrogateescape")
    words = [found.span() for found in re.finditer(r"[\w.+-]+", text)] or [(0, 0)]
    for first, last in sorted(rng.sample(words, min(len(words), rng.randint(1, 2))), reverse=True):
        text = text[:first] + rng.choice(ODD_TEXTS) + text[last:]
    return text.encode(errors="surrogateescape")


TEXT_MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, cut_out, insert, *(odd_text,) * 6)
"""For files that people write: TOML, CSV, JSON Lines."""
