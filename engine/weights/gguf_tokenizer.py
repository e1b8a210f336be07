"""The tokenizer of a GGUF file: byte-level BPE from the file's tables, read as llama.cpp reads them.

What a file does not say means what llama.cpp takes it to mean (`llama_vocab::impl::load` in its src/llama-vocab.cpp):
the default pre-tokenizer, a begin token for some groups of pre-tokenizers, token 11 for begin and end, and the tokens
that end an answer by their names.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tracereel.engine.chat_template import ChatTemplate
from tracereel.engine.model_config import ModelFileError
from tracereel.engine.tokenizer import ChatTokenizer, bytes_of_tokens


def _split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# The patterns of Meta's Llama 3 and Alibaba's Qwen 2, as in their tokenizer.json; the last is llama.cpp's own default.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)

_PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": lambda: _split(_LLAMA3),
    "qwen2": lambda: _split(QWEN2_PATTERN),
    "default": lambda: _split(*_DEFAULT),
}
"""By the names that GGUF files have for them."""
_OTHER_NAMES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), "llama-bpe"),
    **dict.fromkeys(("deepseek-r1-qwen", "kormo", "megrez"), "qwen2"),
    **dict.fromkeys(("phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4"), "gpt-2"),
}
_LLAMA_GROUP = "llama-bpe"
"""The group that adds a begin token where the file does not say, and takes a word that is a token as that token."""
_DEFAULT_SPECIAL = 11
"""The begin and the end token of byte-level BPE in a file that names none."""

_END_NAMES = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>", "<｜end▁of▁sentence｜>"),
        # Tokens that end a file, or pad, in fill-in-the-middle training end an answer too.
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>"),
        *("<REPO>", "<reponame>", "<|file_sep|>"),
    }
)
"""Tokens that end an answer whatever the file says of them."""
_NO_END_WITH = (("<|return|>", "<|call|>"), ("<|flush|>", "<|calls|>"))
"""Where a vocabulary has both tokens of a pair, <|end|> ends a message, not an answer."""


def gguf_tokenizer(values: Mapping[str, Any]) -> ChatTokenizer:
    """The tokenizer of a file with these keys. Raises ModelFileError, and LookupError, TypeError or ValueError for
    tables that are broken."""

    def value(name: str, default: Any = None) -> Any:
        return values.get(f"tokenizer.ggml.{name}", default)

    if (kind := value("model")) != "gpt2":
        raise ModelFileError(f"tokenizer {kind!r} is not supported; supported: gpt2 (byte-level BPE)")
    named = str(value("pre") or "default")
    pre = _OTHER_NAMES.get(named, named)
    if pre not in _PRE_TOKENIZERS:
        raise ModelFileError(f"pre-tokenizer {named!r} is not supported; supported: {', '.join(_PRE_TOKENIZERS)}")
    tokens: list[str] = values["tokenizer.ggml.tokens"]
    types = value("token_type") or [gguf.TokenType.NORMAL] * len(tokens)
    begin, end = (_special(value(f"{name}_token_id"), len(tokens)) for name in ("bos", "eos"))
    named_ends = {_known(value(f"{name}_token_id"), len(tokens)) for name in ("eot", "eom")}
    ends = _end_ids(tokens) | {token for token in (end, *named_ends) if token is not None}
    control = {i for i, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} | _end_ids(tokens)
    whole = {i for i, kind in enumerate(types) if kind == gguf.TokenType.USER_DEFINED} - control
    bpe = _bpe(tokens, values["tokenizer.ggml.merges"], pre)
    bpe.add_tokens([AddedToken(tokens[i], normalized=False) for i in sorted(whole)])
    bpe.add_special_tokens([AddedToken(tokens[i], normalized=False) for i in sorted(control)])
    begins = begin if value("add_bos_token", pre == _LLAMA_GROUP) else None
    bpe.post_processor = _around(tokens, begins, end if value("add_eos_token", False) else None)
    names = {f"{name}_token": tokens[i] for name, i in (("bos", begin), ("eos", end)) if i is not None}
    template = str(values.get("tokenizer.chat_template", ""))
    return ChatTokenizer(
        bpe,
        end_ids=frozenset(ends),
        template=ChatTemplate(template, names) if template else None,
        begin_id=begins,
        token_bytes=bytes_of_tokens(enumerate(tokens), len(tokens), control, whole),
    )


def _bpe(tokens: list[str], merges: list[str], pre: str) -> Tokenizer:
    pairs = [cast("tuple[str, str]", tuple(merge.split(" ", 1))) for merge in merges]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre == _LLAMA_GROUP))
    except Exception as error:  # the library raises no narrower type
        raise ModelFileError(f"the tokenizer's tables are broken ({error})") from None
    bpe.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    bpe.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        bpe.normalizer = normalizers.NFC()
    return bpe


def _special(stored: Any, vocabulary: int) -> int | None:
    """A begin or end token: the one that is named, else the default one, where there is such a token."""
    known = _known(stored, vocabulary)
    return known if known is not None else _known(_DEFAULT_SPECIAL, vocabulary)


def _known(stored: Any, vocabulary: int) -> int | None:
    return stored if isinstance(stored, int) and 0 <= stored < vocabulary else None


def _end_ids(tokens: list[str]) -> set[int]:
    found = {token: i for i, token in enumerate(tokens) if token in _END_NAMES}
    if any(first in found and second in found for first, second in _NO_END_WITH):
        found.pop("<|end|>", None)
    return set(found.values())


def _around(tokens: list[str], begin: int | None, end: int | None) -> processors.TemplateProcessing:
    """What puts the begin and the end token around a plain prompt."""
    stands = [(f"t{i}", i) for i in (begin, end) if i is not None]
    single = [*([f"t{begin}"] if begin is not None else []), "$A", *([f"t{end}"] if end is not None else [])]
    return processors.TemplateProcessing(single=single, special_tokens=sorted(set(stands)))
