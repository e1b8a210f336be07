"""Text to token ids and back, for one model: its BPE, its chat template, and text that comes token by token.

Knows the tokenizer's tables, not where they came from. A prompt is data: the chat template runs in a sandbox, and
control tokens spelled out in a prompt are ordinary text.
"""

import codecs
import re
from collections.abc import Callable
from typing import cast

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tracereel.engine.gguf_file import ModelFileError, TokenizerTables

_MARK = "\x00prompt\x00"

_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
}


class ChatTokenizer:
    """The model's tokenizer. Raises ModelFileError for a pre-tokenizer that is not known."""

    def __init__(self, tables: TokenizerTables):
        if tables.pre not in _PRE_TOKENIZERS:
            raise ModelFileError(
                f"pre-tokenizer {tables.pre!r} is not supported; supported: {', '.join(_PRE_TOKENIZERS)}"
            )
        merges = [cast("tuple[str, str]", tuple(merge.split(" ", 1))) for merge in tables.merges]
        vocabulary = {token: i for i, token in enumerate(tables.tokens)}
        self._bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        self._bpe.pre_tokenizer = _PRE_TOKENIZERS[tables.pre]()
        self._bpe.decoder = decoders.ByteLevel()
        self._control_ids = {tables.tokens[i]: i for i in tables.control}
        self._control = re.compile("(" + "|".join(re.escape(token) for token in self._control_ids) + ")")
        self._bytes = _token_bytes(tables)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        try:
            self._template = environment.from_string(tables.chat_template)
        except jinja2.TemplateError as error:
            raise ModelFileError(f"the chat template is broken ({error})") from None
        self.end_ids = tables.end_ids

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(self._bpe.encode(text, add_special_tokens=False).ids)

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of a conversation in which the user has said `prompt` and the model is to answer."""
        # The template is rendered around a mark, so that only its own control tokens become control tokens. Plain text
        # on both sides of the prompt is encoded together with it, as BPE may join them.
        rendered = self._template.render(
            messages=[{"role": "user", "content": _MARK}], add_generation_prompt=True, eos_token="", bos_token=""
        )
        ids: list[int] = []
        for piece in self._control.split(rendered):
            if piece in self._control_ids:
                ids.append(self._control_ids[piece])
            else:
                ids.extend(self.encode(piece.replace(_MARK, prompt)))
        return ids

    def stream(self) -> "TextStream":
        """A decoder for one request's output."""
        return TextStream(self._bytes)


class TextStream:
    """Turns token ids into text one at a time; a character split over tokens comes with the last of them."""

    def __init__(self, token_bytes: list[bytes]):
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def text(self, token_id: int, last: bool = False) -> str:
        """The text that this token completes; control tokens have none."""
        return self._decoder.decode(self._token_bytes[token_id], final=last)


def _token_bytes(tables: TokenizerTables) -> list[bytes]:
    """The bytes each token stands for; GPT-2's printable stand-ins for bytes are put back, control tokens are empty."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    stand_in = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    stand_in.update((chr(256 + i), byte) for i, byte in enumerate(others))
    return [
        b"" if i in tables.control else bytes(stand_in[char] for char in token) for i, token in enumerate(tables.tokens)
    ]
