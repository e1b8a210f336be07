"""The JSON Schema of a trace's records, generated from the types; `schema.json` next to this file is its output.

    python -m tracereel.trace.format.schema > trace/schema.json

Knows the shape of one record, as `events` does. What JSON Schema cannot say (how records follow each other) is in
`SCHEMA.md` and checked by `invariants`.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
from tracereel.trace.format.events import SCHEMA_VERSION, Event

PUBLISHED = Path(__file__).resolve().parents[1] / "schema.json"
"""The file that is shipped, for readers and writers in other languages."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every line of a trace fits."""
    schema = msgspec.json.schema(Event)
    schema["$defs"]["Header"]["properties"]["schema"] = {"const": SCHEMA_VERSION}
    title = f"a record (one line) of a tracereel trace, schema version {SCHEMA_VERSION}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}


def published_text() -> str:
    """What `schema.json` holds."""
    return msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode() + "\n"


if __name__ == "__main__":
    sys.stdout.write(published_text())
