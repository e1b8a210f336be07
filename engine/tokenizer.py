"""Text to token ids and back, for one model: its tokenizer, its chat template, and text that comes token by token.

Knows a tokenizer of the `tokenizers` library, not which store of weights it came with. A prompt is data: control tokens
spelled out in a prompt are ordinary text.
"""

import codecs
import json
import re
import secrets
import threading
from collections.abc import Iterable
from functools import cached_property

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tracereel.engine.chat_template import ChatTemplate
from tracereel.engine.model_config import MAX_VOCABULARY, ModelFileError

_MARKS = range(0xF0000, 0x10FFFE)
"""Private code points: one replaces the first character of each control token that a prompt spells out."""


class ChatTokenizer:
    """A model's tokenizer and chat template, whatever file they came in.

    `bpe` knows the control tokens as special added tokens, and what stands before and after a plain prompt as its
    post-processor; truncation and padding that were saved with it are left out. `end_ids` end an answer. `begin_id`
    stands before a conversation unless its template has put it there; None for no such token. `splits_control`: not
    even the template's own control tokens are control tokens (transformers' `split_special_tokens`). `token_bytes` are
    the bytes of each id of the vocabulary, None where tokens are not plain sequences of bytes and the tokenizer's own
    decoder is used. `missing` says why no text can be encoded; encoding then raises ModelFileError.
    """

    def __init__(
        self,
        bpe: Tokenizer,
        *,
        end_ids: frozenset[int],
        template: ChatTemplate | None = None,
        begin_id: int | None = None,
        splits_control: bool = False,
        token_bytes: list[bytes] | None = None,
        missing: str | None = None,
    ):
        bpe.no_truncation()
        bpe.no_padding()
        self._bpe, self._template, self._begin_id = bpe, template, begin_id
        self._splits_control, self._bytes, self._missing = splits_control, token_bytes, missing
        self._lock = threading.Lock()
        control = [token.content for token in bpe.get_added_tokens_decoder().values() if token.special]
        longest_first = sorted(control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first))) if control else None
        self.end_ids = end_ids

    @classmethod
    def of_bytes(cls, vocabulary: int, end_ids: frozenset[int] = frozenset()) -> "ChatTokenizer":
        """A token a byte, for a model that has no tokenizer; ids from 256 on have no text.

        Raises ModelFileError for a vocabulary of fewer than 256.
        """
        if vocabulary < 256:
            raise ModelFileError(
                f"the model has no tokenizer, and a vocabulary of {vocabulary} does not hold all bytes"
            )
        bpe = Tokenizer(models.BPE(vocab=stand_ins(), merges=[]))
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return cls(bpe, end_ids=end_ids, token_bytes=[bytes([i]) if i < 256 else b"" for i in range(vocabulary)])

    @classmethod
    def of_ids(cls, vocabulary: int, end_ids: frozenset[int], name: str) -> "ChatTokenizer":
        """For learnt weights without a tokenizer: prompts of token ids are taken, text is refused, ids have no text.

        A token a byte would be a prompt that the model was never trained on.
        """
        missing = f"{name}: the model has no tokenizer (no tokenizer.json): it can be asked token ids alone, no text"
        return cls(Tokenizer(models.BPE()), end_ids=end_ids, token_bytes=[b""] * vocabulary, missing=missing)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, nothing added."""
        return self._encode(text, control=False)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued, with what the model expects at its beginning and its end."""
        return self._encode(text, control=False, adds=True)

    def encode_chat(self, prompt: str) -> list[int]:
        """Token ids of a conversation in which the user has said `prompt` and the model is to answer.

        A model without a chat template gets the prompt as a text to be continued. Raises ModelFileError where the
        template cannot be rendered.
        """
        if self._template is None:
            return self.encode_prompt(prompt)
        if self._control is None or self._splits_control or not self._control.search(prompt):
            ids = self._encode(self._template.render(prompt), control=not self._splits_control)
        else:
            ids = self._encode_guarded(self._template, self._control, prompt)
        return [self._begin_id, *ids] if self._begin_id is not None and ids[:1] != [self._begin_id] else ids

    def stream(self) -> "ByteStream | DecodedStream":
        """A decoder for one request's output."""
        return ByteStream(self._bytes) if self._bytes is not None else DecodedStream(self._bpe)

    def _encode(self, text: str, *, control: bool, adds: bool = False) -> list[int]:
        """`control`: are control tokens in the text control tokens? The library keeps that in the tokenizer's state."""
        if self._missing is not None:
            raise ModelFileError(self._missing)
        with self._lock:
            self._bpe.encode_special_tokens = not control
            return list(self._bpe.encode(text, add_special_tokens=adds).ids)

    def _encode_guarded(self, template: ChatTemplate, control: re.Pattern[str], prompt: str) -> list[int]:
        """The same for a prompt that spells out control tokens.

        While the template is rendered, the first character of each of them is replaced by one that the prompt does not
        hold: so only the template's own are found in the rendered text. Those get names that no text can spell, and the
        prompt gets its characters back.
        """
        firsts = sorted({found[0][0] for found in control.finditer(prompt)})
        unused = (chr(code) for code in _MARKS if chr(code) not in prompt)
        marks = dict(zip(firsts, unused, strict=False))
        if len(marks) < len(firsts):
            raise ModelFileError("the prompt spells out control tokens and holds every private code point besides")
        rendered = template.render(control.sub(lambda found: marks[found[0][0]] + found[0][1:], prompt))
        names, ids, guarded = self._unspellable
        text = control.sub(lambda found: names[found[0]], rendered)
        for first, mark in marks.items():
            text = text.replace(mark, first)
        return [ids.get(token, token) for token in guarded.encode(text, add_special_tokens=False).ids]

    @cached_property
    def _unspellable(self) -> tuple[dict[str, str], dict[int, int], Tokenizer]:
        """A tokenizer whose control tokens have other names: those names, what id each of its ids means, itself."""
        content = json.loads(self._bpe.to_str())
        names: dict[str, str] = {}
        own: dict[str, int] = {}
        secret = secrets.token_hex(16)  # a prompt may spell anything but what it cannot know
        for token in content["added_tokens"]:
            if token["special"]:
                names[token["content"]] = token["content"] = f"<{secret} {len(names)}>"
            own[token["content"]] = token["id"]
        content["post_processor"] = None  # it may ask for a control token by its name
        guarded = Tokenizer.from_str(json.dumps(content))
        behind = {token: own[name] for name, token in guarded.get_vocab().items() if name in own}
        return names, behind, guarded


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


def stand_ins() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, and the bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    found = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    found.update((chr(256 + i), byte) for i, byte in enumerate(others))
    return found


def bytes_of_tokens(
    tokens: Iterable[tuple[int, str]], vocabulary: int, control: Iterable[int], whole: Iterable[int]
) -> list[bytes]:
    """The bytes each token stands for: stand-ins are put back, control tokens and ids without a token are empty.

    Raises ModelFileError for a token whose id no vocabulary holds, before anything is made of it.
    """
    stand_in, silent, literal = stand_ins(), set(control), set(whole)
    pieces = {
        i: token.encode()
        if i in literal or any(char not in stand_in for char in token)
        else bytes(stand_in[char] for char in token)
        for i, token in tokens
        if i not in silent
    }
    if (highest := max(pieces, default=0)) >= MAX_VOCABULARY:
        raise ModelFileError(f"the tokenizer: a token has the id {highest}, at most {MAX_VOCABULARY - 1} can be")
    return [pieces.get(i, b"") for i in range(max(vocabulary, highest + 1))]
