"""Text to token ids and back, for one model: its tokenizer, its chat template, and text that comes token by token.

Knows the tokenizer's tables, not which store of weights they came with. A prompt is data: the chat template runs in a
sandbox, and control tokens spelled out in a prompt are ordinary text.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tracereel.engine.json_file import read_json
from tracereel.engine.model_config import ModelFileError

_MARK = "\x00prompt\x00"


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# The patterns of Meta's Llama 3 and Alibaba's Qwen 2, as in their tokenizer.json.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": lambda: _split(_LLAMA3),
    "qwen2": lambda: _split(_QWEN2),
}
"""By the names that GGUF files have for them."""


@dataclass(frozen=True)
class TokenizerTables:
    """What a byte-level BPE tokenizer in a GGUF file is made of."""

    tokens: list[str]
    merges: list[str]
    control: frozenset[int]
    whole: frozenset[int]
    """Tokens that are found in text before anything else is, and are text themselves."""
    pre: str
    begin_id: int | None
    adds_begin: bool
    end_id: int
    end_ids: frozenset[int]
    chat_template: str


class _Token(msgspec.Struct):
    content: str


class _TokenizerConfig(msgspec.Struct):
    """What of tokenizer_config.json is used."""

    chat_template: str | list[dict[str, str]] | None = None
    bos_token: str | _Token | None = None
    eos_token: str | _Token | None = None


class ChatTokenizer:
    """A model's tokenizer and chat template, whatever file they came in.

    `control` are the control tokens, `begin` those that stand before a plain prompt, `end_ids` those that end an
    answer. `names` are what the chat template calls `bos_token` and `eos_token`. `token_bytes` are the bytes of each id
    of the vocabulary, None where tokens are no plain sequences of bytes and the tokenizer's own decoder must be asked.
    """

    def __init__(
        self,
        bpe: Tokenizer,
        *,
        control: dict[str, int],
        begin: list[int],
        end_ids: frozenset[int],
        chat_template: str | None,
        names: dict[str, str],
        token_bytes: list[bytes] | None,
    ):
        self._bpe, self._control_ids, self._begin = bpe, control, begin
        self._control = re.compile("(" + "|".join(re.escape(token) for token in control) + ")") if control else None
        self._bytes = token_bytes
        self._names = names
        self._template = _compiled(chat_template) if chat_template else None
        self.end_ids = end_ids

    @classmethod
    def of_tables(cls, tables: TokenizerTables) -> "ChatTokenizer":
        """Raises ModelFileError for a pre-tokenizer that is not known."""
        if tables.pre not in _PRE_TOKENIZERS:
            raise ModelFileError(
                f"pre-tokenizer {tables.pre!r} is not supported; supported: {', '.join(_PRE_TOKENIZERS)}"
            )
        merges = [cast("tuple[str, str]", tuple(merge.split(" ", 1))) for merge in tables.merges]
        vocabulary = {token: i for i, token in enumerate(tables.tokens)}
        try:
            bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=tables.pre == "llama-bpe"))
        except Exception as error:  # the library raises nothing narrower
            raise ModelFileError(f"the tokenizer's tables are broken ({error})") from None
        bpe.pre_tokenizer = _PRE_TOKENIZERS[tables.pre]()
        bpe.decoder = decoders.ByteLevel()
        if tables.pre == "qwen2":
            bpe.normalizer = normalizers.NFC()
        bpe.add_tokens([AddedToken(tables.tokens[i], normalized=False) for i in sorted(tables.whole)])
        begin_name = "" if tables.begin_id is None else tables.tokens[tables.begin_id]
        return cls(
            bpe,
            control={tables.tokens[i]: i for i in tables.control},
            begin=[tables.begin_id] if tables.adds_begin and tables.begin_id is not None else [],
            end_ids=tables.end_ids,
            chat_template=tables.chat_template or None,
            names={"bos_token": begin_name, "eos_token": tables.tokens[tables.end_id]},
            token_bytes=_token_bytes(enumerate(tables.tokens), len(tables.tokens), tables.control, tables.whole),
        )

    @classmethod
    def of_folder(cls, folder: Path, end_ids: frozenset[int], vocabulary: int) -> "ChatTokenizer":
        """From tokenizer.json, tokenizer_config.json and chat_template.jinja. Raises ModelFileError."""
        path = folder / "tokenizer.json"
        decoder = read_json(path, dict[str, Any]).get("decoder")
        try:
            bpe = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ModelFileError(f"{path}: not a readable tokenizer ({error})") from None
        settings = folder / "tokenizer_config.json"
        config = read_json(settings, _TokenizerConfig) if settings.is_file() else _TokenizerConfig()
        added = bpe.get_added_tokens_decoder()
        control = {token.content: i for i, token in added.items() if token.special}
        begin = [i for i in bpe.encode("").ids if i in control.values()]
        bpe.encode_special_tokens = True  # control tokens spelled out in a text are text
        is_byte_level = isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
        pieces = ((i, token) for token, i in bpe.get_vocab().items())
        names = {"bos_token": config.bos_token, "eos_token": config.eos_token}
        return cls(
            bpe,
            control=control,
            begin=begin,
            end_ids=end_ids,
            chat_template=_folder_template(folder, config),
            names={name: token.content if isinstance(token, _Token) else token or "" for name, token in names.items()},
            token_bytes=_token_bytes(pieces, vocabulary, control.values(), added) if is_byte_level else None,
        )

    @classmethod
    def of_bytes(cls, vocabulary: int, end_ids: frozenset[int] = frozenset()) -> "ChatTokenizer":
        """A token a byte, for a model that has no tokenizer; ids from 256 on have no text.

        Raises ModelFileError for a vocabulary of fewer than 256.
        """
        if vocabulary < 256:
            raise ModelFileError(
                f"the model has no tokenizer, and a vocabulary of {vocabulary} does not hold all bytes"
            )
        bpe = Tokenizer(models.BPE(vocab=_stand_ins(), merges=[]))
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return cls(
            bpe,
            control={},
            begin=[],
            end_ids=end_ids,
            chat_template=None,
            names={},
            token_bytes=[bytes([i]) if i < 256 else b"" for i in range(vocabulary)],
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, nothing added."""
        return list(self._bpe.encode(text, add_special_tokens=False).ids)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued: what the model expects at the beginning, then the text."""
        return [*self._begin, *self.encode(text)]

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of a conversation in which the user has said `prompt` and the model is to answer.

        A model without a chat template gets the prompt as a text to be continued. Raises ModelFileError where the
        template cannot be rendered.
        """
        if self._template is None:
            return self.encode_prompt(prompt)
        # The template is rendered around a mark, so that only its own control tokens become control tokens. Plain text
        # on both sides of the prompt is encoded together with it, as BPE may join them.
        try:
            rendered = self._template.render(
                messages=[{"role": "user", "content": _MARK}], add_generation_prompt=True, **self._names
            )
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ModelFileError(f"the chat template cannot be rendered ({error})") from None
        ids: list[int] = []
        for piece in self._control.split(rendered) if self._control else [rendered]:
            if piece in self._control_ids:
                ids.append(self._control_ids[piece])
            else:
                ids.extend(self.encode(piece.replace(_MARK, prompt)))
        return ids

    def stream(self) -> "ByteStream | DecodedStream":
        """A decoder for one request's output."""
        return ByteStream(self._bytes) if self._bytes is not None else DecodedStream(self._bpe)


class ByteStream:
    """The text of tokens that are sequences of bytes."""

    def __init__(self, token_bytes: list[bytes]):
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def text(self, token_id: int, last: bool = False) -> str:
        """The text that this token completes; control tokens have none."""
        return self._decoder.decode(self._token_bytes[token_id], final=last)


class DecodedStream:
    """The text of any other tokens (SentencePiece's, with their spaces and byte tokens), by the tokenizer's decoder."""

    def __init__(self, bpe: Tokenizer):
        self._bpe = bpe
        self._decoder = decoders.DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []
        """Ids whose text has not come yet."""

    def text(self, token_id: int, last: bool = False) -> str:
        """The text that this token completes; control tokens have none."""
        self._held.append(token_id)
        text = self._decoder.step(self._bpe, token_id)
        if text is None:
            return self._bpe.decode(self._held, skip_special_tokens=True) if last else ""
        self._held.clear()
        return text


def _compiled(chat_template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    try:
        return environment.from_string(chat_template)
    except jinja2.TemplateError as error:
        raise ModelFileError(f"the chat template is broken ({error})") from None


def _refuse(message: str) -> None:
    """What templates call for a conversation that they cannot render."""
    raise jinja2.TemplateError(message)


def _folder_template(folder: Path, config: _TokenizerConfig) -> str | None:
    own_file = folder / "chat_template.jinja"
    if own_file.is_file():
        try:
            return own_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{own_file}: cannot be read ({error})") from None
    if isinstance(config.chat_template, list):  # several, by name
        return next((item.get("template") for item in config.chat_template if item.get("name") == "default"), None)
    return config.chat_template


def _stand_ins() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, and the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    stand_ins = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    stand_ins.update((chr(256 + i), byte) for i, byte in enumerate(others))
    return stand_ins


def _token_bytes(
    tokens: Iterable[tuple[int, str]], vocabulary: int, control: Iterable[int], whole: Iterable[int]
) -> list[bytes]:
    """The bytes each token stands for: stand-ins are put back, control tokens and ids without a token are empty."""
    stand_in, silent, literal = _stand_ins(), set(control), set(whole)
    pieces = {
        i: token.encode()
        if i in literal or any(char not in stand_in for char in token)
        else bytes(stand_in[char] for char in token)
        for i, token in tokens
        if i not in silent
    }
    return [pieces.get(i, b"") for i in range(max(vocabulary, max(pieces, default=0) + 1))]
