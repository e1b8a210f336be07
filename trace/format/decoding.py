"""One line to one record, or one clear reason why it is none.

Knows the shape of a record and the schema version. Does not know files or the records before.
"""

import msgspec
from tracereel.trace.format.events import SCHEMA_VERSION, Event, Header, decoder


class MalformedRecordError(Exception):
    """A line is no record of this schema; the message is one line and names the field."""


def decode_record(line: bytes) -> Event:
    """Decode a line. Raises MalformedRecordError, also for a header of another schema version."""
    try:
        event = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRecordError(_describe(line, error)) from None
    if isinstance(event, Header) and event.schema != SCHEMA_VERSION:
        raise MalformedRecordError(_other_schema(event.schema))
    return event


def _describe(line: bytes, error: Exception) -> str:
    version = _schema_of(line)
    if version is not None and version != SCHEMA_VERSION:
        return _other_schema(version)
    if isinstance(error, RecursionError):
        return "the record is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason} at byte {error.start})"
    return " ".join(str(error).split())[:300]


def _other_schema(version: int) -> str:
    return (
        f"schema: this file is of trace schema {version}, this tracereel reads schema {SCHEMA_VERSION};"
        " use the tracereel that recorded it, or a newer one"
    )


class _Schema(msgspec.Struct):
    schema: int
    event: str


_schema_decoder = msgspec.json.Decoder(_Schema)


def _schema_of(line: bytes) -> int | None:
    """The schema version of a line that is a header of any version, else None."""
    try:
        found = _schema_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.schema if found.event == "header" else None
