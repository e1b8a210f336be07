"""Text from a trace, a prompt or a file's name is data: it must not move a cursor, change colours or reverse its line.

Knows characters. Does not know where the text goes.
"""

from typing import Any

import msgspec


def printable(text: str) -> str:
    """The text with the escape of every character that is not printable: a control, a bidirectional override, a half of
    a surrogate pair."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def request_label(request: int) -> str:
    """How a request is called wherever a person reads: R1, R2, … in the order of arrival."""
    return f"R{request + 1}"


def json_line(value: Any) -> str:
    """The value as JSON of printable characters in one line; what reads JSON gets the same text back."""
    text = msgspec.json.encode(value).decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    code = char.encode("utf-16-be").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))
