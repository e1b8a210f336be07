"""The tokenizer of a folder in Hugging Face's layout, read as transformers 5 reads it.

tokenizer.json is the tokenizer; tokenizer_config.json names special tokens and may add some; chat_template.jinja (or an
entry of the configuration) is the template. A folder whose tokenizer is in other files is refused by their names: what
those mean depends on Python classes of transformers, which saves them as tokenizer.json.
"""

from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tracereel.engine.chat_template import ChatTemplate
from tracereel.engine.json_file import read_bounded, read_json
from tracereel.engine.model_config import ModelFileError
from tracereel.engine.tokenizer import ChatTokenizer, bytes_of_tokens
from tracereel.engine.weights.gguf_tokenizer import QWEN2_PATTERN

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""The files that, with config.json, decide how text becomes tokens and when an answer ends."""
_OTHER_TOKENIZERS = ("vocab.json", "merges.txt", "tokenizer.model", "vocab.txt", "spiece.model", "tekken.json")
MAX_TOKENIZER_BYTES = 64 * 2**20
MAX_TEMPLATE_BYTES = 2**20
TEMPLATES = "additional_chat_templates"
"""The folder of further templates, by their names."""
_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class _Token(msgspec.Struct):
    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool | None = None
    special: bool = False

    def added(self, *, special: bool) -> AddedToken:
        special = special or self.special
        return AddedToken(
            self.content,
            lstrip=self.lstrip,
            rstrip=self.rstrip,
            single_word=self.single_word,
            normalized=not special if self.normalized is None else self.normalized,
            special=special,
        )


class _Stored(msgspec.Struct):
    """The fields of tokenizer.json that are read here; the library reads all others."""

    decoder: Any = None
    padding: Any = None


class _NamedTemplate(msgspec.Struct):
    name: str
    template: str


class _TokenizerConfig(msgspec.Struct):
    """The fields of tokenizer_config.json that are used, except the special tokens, which have names of their own."""

    chat_template: str | list[_NamedTemplate] | dict[str, str] | None = None
    added_tokens_decoder: dict[int, _Token] | None = None
    extra_special_tokens: dict[str, str | _Token] | list[str | _Token] | None = None
    additional_special_tokens: list[str | _Token] | None = None
    split_special_tokens: bool = False
    tokenizer_class: str | None = None
    add_prefix_space: bool | None = None
    legacy: bool = False


def folder_tokenizer(
    folder: Path, end_ids: frozenset[int], vocabulary: int, architecture: str = ""
) -> ChatTokenizer | None:
    """The tokenizer of a folder, None where it has none. Raises ModelFileError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        if there := [name for name in _OTHER_TOKENIZERS if (folder / name).is_file()]:
            raise ModelFileError(
                f"{folder}: its tokenizer is in {' and '.join(there)}, which is not read; tokenizer.json is: write it"
                " with transformers, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        return None
    stored = read_json(path, _Stored, MAX_TOKENIZER_BYTES)
    try:
        bpe = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower type
        raise ModelFileError(f"{path}: not a readable tokenizer ({' '.join(str(error).split())})") from None
    settings = folder / "tokenizer_config.json"
    config = read_json(settings, _TokenizerConfig) if settings.is_file() else _TokenizerConfig()
    raw = read_json(settings, dict[str, Any]) if settings.is_file() else {}
    _rebuild(bpe, config, architecture, byte_level=_is_byte_level(stored))
    names, special = _special_tokens(folder, config, raw)
    if isinstance(stored.padding, dict) and "pad_token" in stored.padding:
        names.setdefault("pad_token", str(stored.padding["pad_token"]))
    _add_tokens(bpe, config, names, special)
    added = bpe.get_added_tokens_decoder()
    control = [i for i, token in added.items() if token.special]
    pieces = ((i, token) for token, i in bpe.get_vocab().items())
    source = _template_source(folder, config)
    return ChatTokenizer(
        bpe,
        end_ids=end_ids,
        template=ChatTemplate(source, names) if source is not None else None,
        splits_control=config.split_special_tokens,
        token_bytes=bytes_of_tokens(pieces, vocabulary, control, added) if _is_byte_level(stored) else None,
    )


def _is_byte_level(stored: _Stored) -> bool:
    return isinstance(stored.decoder, dict) and stored.decoder.get("type") == "ByteLevel"


def _rebuild(bpe: Tokenizer, config: _TokenizerConfig, architecture: str, *, byte_level: bool) -> None:
    """Two classes of transformers take vocabulary and merges from tokenizer.json and nothing else of its pipeline."""
    name = (config.tokenizer_class or "").removesuffix("Fast")
    if architecture == "qwen2" or name == "Qwen2Tokenizer" or (architecture == "qwen3" and not name):
        if byte_level:
            split = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
            space = bool(config.add_prefix_space)
            plain = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
            bpe.normalizer = normalizers.NFC()
            bpe.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    elif name == "LlamaTokenizer" and not byte_level:
        first = "always" if config.legacy else "first"
        scheme = "never" if config.add_prefix_space is False else first
        bpe.normalizer = None
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)


def _special_tokens(
    folder: Path, config: _TokenizerConfig, raw: dict[str, Any]
) -> tuple[dict[str, str], list[str | _Token]]:
    """The special tokens by their names, for the template, and all of them."""
    found = dict(raw)
    listed = folder / "special_tokens_map.json"
    if config.added_tokens_decoder is None and listed.is_file():
        found |= read_json(listed, dict[str, Any])
    extra = found.get("extra_special_tokens") or found.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        found |= extra
    named: dict[str, str | _Token] = {}
    for name, value in found.items():
        of_its_own = isinstance(extra, dict) and name in extra
        if name in _STANDARD or of_its_own or (name.endswith("_token") and isinstance(value, str)):
            if isinstance(value, str):
                named[name] = value
            elif isinstance(value, dict):
                named[name] = _as_token(folder, name, value)
    others = [_as_token(folder, "extra_special_tokens", token) for token in extra if not isinstance(extra, dict)]
    return {name: _content(token) for name, token in named.items()}, [*named.values(), *others]


def _as_token(folder: Path, name: str, value: object) -> str | _Token:
    try:
        return msgspec.convert(value, str | _Token)
    except msgspec.ValidationError as error:
        raise ModelFileError(f"{folder / 'tokenizer_config.json'}: {name}: {error}") from None


def _content(token: str | _Token) -> str:
    return token.content if isinstance(token, _Token) else token


def _add_tokens(bpe: Tokenizer, config: _TokenizerConfig, names: dict[str, str], special: list[str | _Token]) -> None:
    """Tokens that the configuration knows and tokenizer.json does not are added, in the order of their ids."""
    there = {token.content for token in bpe.get_added_tokens_decoder().values()}
    wanted: list[AddedToken] = []
    for _, token in sorted((config.added_tokens_decoder or {}).items()):
        wanted.append(token.added(special=token.content in names.values()))
    for each in special:
        own = each.added(special=True) if isinstance(each, _Token) else AddedToken(each, special=True, normalized=False)
        wanted.append(own)
    for own in wanted:
        if own.content not in there:
            there.add(own.content)
            (bpe.add_special_tokens if own.special else bpe.add_tokens)([own])


def _template_source(folder: Path, config: _TokenizerConfig) -> str | None:
    """The default template: files before the configuration's. Raises ModelFileError where there are only named ones."""
    files = {"default": folder / "chat_template.jinja"}
    if (folder / TEMPLATES).is_dir():
        files |= {path.stem: path for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    templates = {name: _read_text(path) for name, path in files.items() if path.is_file()}
    if not templates:
        if config.chat_template is None or isinstance(config.chat_template, str):
            return config.chat_template
        named = config.chat_template
        templates = named if isinstance(named, dict) else {item.name: item.template for item in named}
    if "default" not in templates:
        raise ModelFileError(f"{folder}: its chat templates are {', '.join(sorted(templates))}; none is the default")
    return templates["default"]


def _read_text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: is not UTF-8 (byte {error.start})") from None
