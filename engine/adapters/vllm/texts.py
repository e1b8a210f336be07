"""Prompts and texts, as vLLM's own front end makes them, and whether a stop string ended a request."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tracereel.engine.adapters.vllm.pieces import piece

IncrementalDetokenizer = piece("vllm.v1.engine.detokenizer:IncrementalDetokenizer")

PROMPT_ARGUMENT = "tracereel_prompt"
"""In a request's `extra_args`: the prompt's own text, where it is not what the template made of it."""


class Texts:
    """The texts of one recording's requests; without a tokenizer none is known. On the recorder's thread."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._stops: dict[str, tuple[list[str], list[str]]] = {}
        """The stop strings of a request, and its text so far."""

    def of(self, request: Any) -> tuple[str | None, Callable[[int], str] | None]:
        """A request's prompt, and what gives the text that its next token completes; None for what is not known."""
        sampling = request.sampling_params
        if self._tokenizer is None or sampling is None or request.prompt_token_ids is None:
            return None, None
        prompt = (sampling.extra_args or {}).get(PROMPT_ARGUMENT)
        if not isinstance(prompt, str):  # any client may put anything there
            prompt = self._tokenizer.decode(request.prompt_token_ids, skip_special_tokens=True)
        spoken: list[str] | None = None
        if sampling.stop:
            spoken = []
            stops = [sampling.stop] if isinstance(sampling.stop, str) else list(sampling.stop)
            self._stops[request.request_id] = (stops, spoken)
        detokenizer = IncrementalDetokenizer.from_new_request(self._tokenizer, request)
        return prompt, partial(_next_text, detokenizer, spoken)

    def stopped(self, key: str) -> bool:
        """Does a request's text hold one of its stop strings?"""
        stops, spoken = self._stops.get(key, ([], []))
        text = "".join(spoken)
        return any(stop in text for stop in stops)

    def forget(self, key: str) -> None:
        """A request is gone."""
        self._stops.pop(key, None)


def _next_text(detokenizer: Any, spoken: list[str] | None, token_id: int) -> str:
    """The text that a token completes."""
    detokenizer.token_ids.append(token_id)
    text = str(detokenizer.decode_next(token_id))
    if spoken is not None:
        spoken.append(text)
    return text
