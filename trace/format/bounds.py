"""Is a value inside the bounds that the records of a trace set? Asked before anything is computed or written.

The bounds are those of `events`, and of UTF-8: half a surrogate pair is a Python string that no file can hold. Knows no
record.
"""

import hashlib
from typing import Any

import msgspec
from tracereel.trace.format.events import Name, Prompt

_SHOWN = 60
_HALF = "holds half a surrogate pair, which UTF-8 cannot write"


def fault(value: object, kind: Any) -> str | None:
    """What keeps `value` from being of that type of `events`, in a few words; None where nothing does."""
    try:
        msgspec.convert(value, kind)
        if isinstance(value, str) and type(value) is not str:
            return f"Expected str, got {type(value).__name__}"
        return None if not isinstance(value, str) or is_text(value) else _HALF
    except msgspec.ValidationError as error:
        return str(error).replace("`", "")
    except UnicodeEncodeError:
        return _HALF


def is_text(value: str) -> bool:
    """Can this string be written as UTF-8? One that holds half a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_name(text: str) -> str:
    """The text where a trace can hold it as a name; else its beginning and the SHA-256 of all of it, still one of a
    kind.

    For a recorder of another engine, which cannot refuse what that engine has accepted.
    """
    if fault(text, Name) is None:
        return text
    content = text.encode(errors="surrogatepass")
    return f"{content[:400].decode(errors='replace')}… sha256 {hashlib.sha256(content).hexdigest()}"


def as_prompt(text: str | None) -> str | None:
    """The text where a trace can hold it as a prompt, else None: it is not known then."""
    return text if text is None or fault(text, Prompt) is None else None


def shown(value: object) -> str:
    """A value as a message shows it: one short line, whatever it is."""
    try:
        text = ascii(value) if isinstance(value, str) and not is_text(value) else repr(value)
    except Exception:  # the value's own __repr__, or a number of more digits than Python prints
        return f"a value of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
