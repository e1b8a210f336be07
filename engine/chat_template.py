"""Chat templates: from what the user said to the text that the model expects, as transformers renders it.

A template is a Jinja program that came with a model: it runs in a sandbox. Besides plain Jinja it may call what
transformers offers: `raise_exception`, `strftime_now`, `tojson` without HTML escapes, loop controls and the
`generation` block, which marks an assistant's words for training and changes nothing here.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tracereel.engine.model_config import ModelFileError

MAX_RENDERED = 16_000_000
"""Characters that a rendered conversation may have."""


class ChatTemplate:
    """One template and what it calls by name: `names` are the special tokens, `bos_token` and the like.

    Raises ModelFileError where it cannot be parsed.
    """

    def __init__(self, source: str, names: Mapping[str, str]):
        self._names = dict(names)
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, OverflowError, ValueError) as error:
            raise ModelFileError(f"the chat template is broken ({_line(error)})") from None

    def render(self, prompt: str) -> str:
        """The conversation in which the user has said `prompt` and the model is to answer.

        Raises ModelFileError where the template cannot be rendered, for whatever reason it gives.
        """
        try:
            rendered = self._template.render(
                messages=[{"role": "user", "content": prompt}],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._names,
            )
        except Exception as error:  # a template may raise anything: it is a program
            raise ModelFileError(f"the chat template cannot be rendered ({_line(error)})") from None
        if len(rendered) > MAX_RENDERED:
            raise ModelFileError(
                f"the chat template gives {len(rendered):,} characters, at most {MAX_RENDERED:,} can be"
            )
        return rendered


class _Generation(Extension):
    """The block {% generation %}…{% endgeneration %}: its content."""

    tags = {"generation"}  # noqa: RUF012  # Jinja declares it so

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    calls: dict[str, Callable[..., Any]] = {"raise_exception": _refuse, "strftime_now": _now}
    environment.globals.update(calls)
    environment.filters["tojson"] = _to_json
    return environment


def _refuse(message: str) -> None:
    """Templates call it for a conversation that they cannot render."""
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    """Local time, as transformers gives it."""
    return datetime.now().strftime(form)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
