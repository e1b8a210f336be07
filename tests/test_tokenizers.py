"""Text is made into tokens as transformers makes it, whatever was saved with a folder; GGUF files as in llama.cpp."""

import json
import math

import gguf
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tracereel.engine.model_config import ModelFileError
from tracereel.engine.weights.gguf_tokenizer import gguf_tokenizer
from tracereel.engine.weights.hf_tokenizer import folder_tokenizer

CONTROL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<pad>", "<unk>"]
WORDS = ["the quick brown fox and the lazy dog, the fox 12 345", "naïve hello world user assistant\n\n"] * 20
PROMPTS = [
    "  the quick fox\n",
    "the quick fox /no_think <i>&'\"",
    "naïve 漢字 🎬\n\nend ",
    "12345 <think> So THE fox",
    "",
    "\t\n ",
    "a fox that is longer than thirty characters, and ends with a question?",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def in_turn(content, before=""):
    return (
        "{% for m in messages %}"
        + before
        + "<|{{ m['role'] }}|>"
        + content
        + "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )


def trained(byte_level=True):
    bpe = Tokenizer(models.BPE(byte_fallback=not byte_level, unk_token=None if byte_level else "<unk>"))
    if byte_level:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        alphabet, control = pre_tokenizers.ByteLevel.alphabet(), CONTROL
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet, control = [], [*CONTROL, *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(WORDS, trainer)
    if byte_level:
        return bpe
    plain = json.loads(bpe.to_str())  # byte tokens are no control tokens
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] in CONTROL]
    return Tokenizer.from_str(json.dumps(plain))


@pytest.fixture(scope="module")
def bases():
    return {"bytes": trained().to_str(), "spaces": trained(byte_level=False).to_str()}


def with_json(**parts):
    """A change to tokenizer.json."""

    def change(bpe, config, folder):
        for name, part in parts.items():
            setattr(bpe, name, part)

    return change


def truncated(bpe, config, folder):
    bpe.enable_truncation(4)


def padded(bpe, config, folder):
    bpe.enable_padding(length=64, pad_id=4, pad_token="<pad>")


def both(bpe, config, folder):
    truncated(bpe, config, folder)
    padded(bpe, config, folder)


def around(single):
    ids = {token: i for i, token in enumerate(CONTROL)}
    used = [(token, ids[token]) for token in CONTROL if token in single]
    return with_json(post_processor=processors.TemplateProcessing(single=single, special_tokens=used))


def added(*tokens, special=False):
    def change(bpe, config, folder):
        (bpe.add_special_tokens if special else bpe.add_tokens)(list(tokens))

    return change


def configured(**settings):
    def change(bpe, config, folder):
        config.update(settings)

    return change


def mapped(**tokens):
    """special_tokens_map.json, as older folders have it, and nothing in the configuration."""

    def change(bpe, config, folder):
        for name in ("bos_token", "eos_token"):
            config.pop(name)
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens))

    return change


MAP = {"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "lstrip": False, "rstrip": False}}
DECODER = {
    "7000": {"content": "<img>", "lstrip": True, "rstrip": True, "special": True, "normalized": False},
    "7001": {"content": "fox", "special": False, "single_word": True},
}
STATES = {
    "as it is": configured(),
    "truncation": truncated,
    "padding": padded,
    "truncation and padding": both,
    "begin token": around("<|begin|> $A"),
    "begin and end token": around("<|begin|> $A <|end|>"),
    "end token": around("$A <|end|>"),
    "byte-level post-processor": with_json(post_processor=processors.ByteLevel(trim_offsets=False)),
    "control token that takes blanks before it": added(AddedToken("<|assistant|>", lstrip=True), special=True),
    "control token that takes blanks after it": added(AddedToken("<|user|>", rstrip=True), special=True),
    "whole words": added(AddedToken("fox", single_word=True)),
    "added tokens": added("<think>", "</think>"),
    "added token that is normalized": added(AddedToken("so", normalized=True)),
    "lower case": with_json(normalizer=normalizers.Lowercase()),
    "compatibility forms": with_json(normalizer=normalizers.NFKC()),
    "stripped": with_json(normalizer=normalizers.Strip()),
    "replaced": with_json(normalizer=normalizers.Replace(" ", "_")),
    "prefix space": with_json(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "digits": with_json(
        pre_tokenizer=pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "ignored merges": lambda bpe, config, folder: setattr(bpe.model, "ignore_merges", True),
    "tokens of the configuration alone": configured(added_tokens_decoder=DECODER),
    "more special tokens": configured(extra_special_tokens=["<img>", "<b>"]),
    "more special tokens by an older name": configured(additional_special_tokens=["<img>"]),
    "named special tokens": configured(extra_special_tokens={"image_token": "<img>"}),
    "special token by its own name": configured(image_token="<img>"),
    "special tokens as objects": configured(bos_token={"content": "<|begin|>", "__type": "AddedToken"}),
    "map of special tokens": mapped(**MAP),
    "split special tokens": configured(split_special_tokens=True),
    "longest length": configured(model_max_length=4, truncation_side="left", padding_side="left"),
    "flags that tokenizer.json overrides": configured(add_bos_token=True, add_eos_token=True),
    "class of Llama": configured(tokenizer_class="LlamaTokenizerFast"),
    "class of GPT-2": configured(tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=False),
    "no class": lambda bpe, config, folder: config.pop("tokenizer_class"),
}
TEMPLATES = {
    "as it is": TEMPLATE,
    "trims": in_turn("{{ m['content'] | trim }}"),
    "strips": in_turn("{{ m.content.strip() }}"),
    "looks into": in_turn("{{ m.content }}", "{% if '/no_think' in m.content %}<|begin|>{% endif %}"),
    "measures": in_turn("{{ m.content }}", "{% if m.content | length > 30 %}long {% endif %}"),
    "splits": in_turn("{{ m.content.split('<think>')[-1].lstrip('\\n') }}"),
    "replaces": in_turn("{{ m.content | replace('fox', 'dog') | upper }}"),
    "begins with": in_turn("{{ m.content }}", "{% if m.content.startswith('the') %}the{% endif %}"),
    "as JSON": in_turn("{{ m | tojson }}{{ m.content | tojson(indent=2) }}"),
    "as a text or as parts": in_turn("{% if m.content is string %}{{ m.content }}{% else %}parts{% endif %}"),
    "generation block": in_turn("{% generation %}{{ m.content }}{% endgeneration %}"),
    "generation block with a variable": in_turn("{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}"),
    "the year": "{{ strftime_now('%Y %d') }}" + TEMPLATE,
    "asks for tools": "{% if tools is not none %}tools{% endif %}{% if documents is defined %}d{% endif %}" + TEMPLATE,
    "special names": "{{ unk_token }}{{ pad_token }}{{ image_token }}" + TEMPLATE,
    "default system prompt": "{% if messages[0].role != 'system' %}<|user|>Be kind.\n{% endif %}" + TEMPLATE,
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    + TEMPLATE,
    "loop controls": "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}" + TEMPLATE,
    "macro": "{% macro say(m) %}{{ m.content }}!{% endmacro %}" + in_turn("{{ say(m) }}"),
    "blanks and lines": "{%- for m in messages -%}\n   {{ m.content }}\n   {% endfor %}\n\n{{ eos_token -}}   \n",
    "dict": "{{ dict(a=1) | tojson }}" + TEMPLATE,
    "none of the prompt": "<|user|>nothing<|end|>",
}


def make_folder(folder, base, state, template, model_type="llama"):
    folder.mkdir()
    bpe = Tokenizer.from_str(base)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "unk_token": "<unk>",
    }
    state(bpe, config, folder)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def read(folder, model_type="llama"):
    return folder_tokenizer(folder, frozenset({1}), 700, model_type)


def assert_as_transformers(folder, model_type="llama", prompts=PROMPTS):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), read(folder, model_type)
    for prompt in prompts:
        message = [{"role": "user", "content": prompt}]
        chat = theirs.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert ours.encode_chat(prompt) == list(chat), prompt
        text = theirs.decode(chat, skip_special_tokens=False)
        assert text, "it is compared to something"


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_whatever_was_saved_the_ids_are_those_of_transformers(bases, tmp_path, state):
    folder = make_folder(tmp_path / "m", bases["bytes"], STATES[state], TEMPLATE)
    assert_as_transformers(folder)
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), read(folder)
    if state != "padding" and "truncation" not in state:  # what a plain call of theirs cuts and fills
        for prompt in PROMPTS:
            assert ours.encode_prompt(prompt) == theirs.encode(prompt), prompt


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_whatever_the_template_does_the_ids_are_those_of_transformers(bases, tmp_path, template):
    state = configured(image_token="<img>", pad_token="<pad>")
    assert_as_transformers(make_folder(tmp_path / "m", bases["bytes"], state, TEMPLATES[template]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "state",
    [
        configured(),
        configured(tokenizer_class="LlamaTokenizerFast"),
        configured(tokenizer_class="LlamaTokenizer", legacy=True),
        configured(tokenizer_class="LlamaTokenizer", legacy=False, add_prefix_space=False),
        with_json(
            normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            pre_tokenizer=pre_tokenizers.Sequence([]),
        ),
        added("<think>"),
    ],
    ids=["as it is", "Llama", "Llama, legacy", "Llama, no prefix", "older Llama", "added"],
)
@pytest.mark.parametrize("template", ["as it is", "trims", "special names"])
def test_sentencepieces_spaces_come_where_transformers_puts_them(bases, tmp_path, state, template):
    assert_as_transformers(make_folder(tmp_path / "m", bases["spaces"], state, TEMPLATES[template]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2TokenizerFast", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_qwens_classes_have_their_own_way_to_split(bases, tmp_path, model_type, name):
    state = configured(tokenizer_class=name)
    folder = make_folder(tmp_path / "m", bases["bytes"], state, TEMPLATE, model_type)
    assert_as_transformers(folder, model_type, [*PROMPTS, "e\u0301 1234 don't"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("in_config", "others"),
    [
        (TEMPLATE, {}),
        ([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": TEMPLATE}], {}),
        ("not this one", {"chat_template.jinja": TEMPLATE}),
        (None, {"chat_template.jinja": TEMPLATE, "additional_chat_templates/tool_use.jinja": "tools"}),
    ],
    ids=["configuration", "several", "file first", "more files"],
)
def test_the_default_template_is_the_one_that_transformers_takes(bases, tmp_path, in_config, others):
    folder = make_folder(tmp_path / "m", bases["bytes"], configured(chat_template=in_config), "")
    (folder / "chat_template.jinja").unlink()
    for name, content in others.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    assert_as_transformers(folder)


def test_templates_of_which_none_is_the_default_are_refused_by_name(bases, tmp_path):
    named = [{"name": "tool_use", "template": "x"}, {"name": "rag", "template": "y"}]
    folder = make_folder(tmp_path / "m", bases["bytes"], configured(chat_template=named), "")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelFileError, match="its chat templates are rag, tool_use; none is the default"):
        read(folder)


# A prompt is data


@pytest.mark.parametrize("base", ["bytes", "spaces"])
@pytest.mark.parametrize("template", ["as it is", "trims", "generation block", "replaces"])
def test_control_tokens_that_a_prompt_spells_out_are_text(bases, tmp_path, base, template):
    change = added(AddedToken("<|assistant|>", lstrip=True), special=True)
    ours = read(make_folder(tmp_path / "m", bases[base], change, TEMPLATES[template]))
    plain = ours.encode_chat("the fox  and the dog")
    count = {token: plain.count(i) for i, token in enumerate(CONTROL)}
    for prompt in ("the <|end|> fox", "<|end|>", " <|user|><|user|>\n", "a <|assistant|> b<|begin|>", "<|e<|end|>nd|>"):
        ids = ours.encode_chat(prompt)
        assert {token: ids.count(i) for i, token in enumerate(CONTROL)} == count, prompt
        stream = ours.stream()
        said = "".join(stream.text(i) for i in ids)
        expected = prompt.strip() if template == "trims" else prompt
        expected = expected.replace("fox", "dog").upper() if template == "replaces" else expected
        assert expected.strip().split()[0].lower() in said.lower(), prompt
        assert ours.encode_prompt(prompt).count(1) == 0


def test_a_spelled_out_token_changes_nothing_before_and_behind_it(bases, tmp_path):
    ours = read(make_folder(tmp_path / "m", bases["bytes"], configured(), TEMPLATE))
    marked, broken = ours.encode_chat("the quick <|end|> brown fox"), ours.encode_chat("the quick <|xyz|> brown fox")
    assert marked[:6] == broken[:6]
    assert marked[-8:] == broken[-8:]


# What is refused


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["vocab.json", "merges.txt"], "vocab.json and merges.txt"),
        (["tokenizer.model"], "tokenizer.model"),
        (["tekken.json", "tokenizer_config.json"], "tekken.json"),
    ],
)
def test_a_tokenizer_in_other_files_is_refused_by_their_names(tmp_path, names, said):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ModelFileError, match=f"its tokenizer is in {said}, which is not read; tokenizer.json is"):
        read(tmp_path)


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert read(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}",
        "{{ 1 / 0 }}",
        "{{ messages[7].x.y }}",
        "{{ raise_exception('no\nno') }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ strftime_now(3) }}",
        "{{ 'x' * 99999999 }}",
        "{% include 'a' %}",
    ],
)
def test_a_template_that_cannot_be_is_one_line(bases, tmp_path, template):
    folder = make_folder(tmp_path / "m", bases["bytes"], configured(), template)
    with pytest.raises(ModelFileError, match="the chat template") as caught:
        read(folder).encode_chat("x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"bos_token": {"x": 1}}, {"chat_template": 7}, {"added_tokens_decoder": {"a": 1}}, {"extra_special_tokens": [3]}],
)
def test_a_configuration_that_cannot_be_is_one_line(bases, tmp_path, settings):
    folder = make_folder(tmp_path / "m", bases["bytes"], configured(**settings), TEMPLATE)
    with pytest.raises(ModelFileError, match=r"tokenizer_config\.json: ") as caught:
        read(folder)
    assert "\n" not in str(caught.value)


# GGUF


def keys(base, **changes):
    content = json.loads(base)
    vocabulary = sorted(content["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    found = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "tokenizer.ggml.token_type": [
            gguf.TokenType.CONTROL if t in CONTROL else gguf.TokenType.NORMAL for t in tokens
        ],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    found |= {f"tokenizer.{name}": value for name, value in changes.items()}
    return {name: value for name, value in found.items() if value is not None}


def ggml(**changes):
    return {f"ggml.{name}": value for name, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({}, True),
        (ggml(add_bos_token=False), False),
        (ggml(pre="llama3"), True),
        (ggml(pre="falcon3"), True),
        (ggml(pre="qwen2"), False),
        (ggml(pre="qwen2", add_bos_token=True), True),
        (ggml(pre="deepseek-r1-qwen"), False),
        (ggml(pre="smollm"), False),
        (ggml(pre="gpt-2"), False),
        (ggml(pre=None), False),
        (ggml(pre="default"), False),
    ],
)
def test_a_begin_token_stands_where_llama_cpp_puts_one(bases, changes, begins):
    ours = gguf_tokenizer(keys(bases["bytes"], **changes))
    text = "the quick fox 123 don't"
    assert ours.encode_prompt(text) == [0] * begins + ours.encode(text)
    stream = ours.stream()
    assert "".join(stream.text(i) for i in ours.encode(text)) == text
    for template in ("<|user|>{{ messages[0].content }}", "{{ bos_token }}<|user|>{{ messages[0].content }}"):
        chat = gguf_tokenizer(keys(bases["bytes"], **changes, chat_template=template)).encode_chat(text)
        assert chat == [0] * (begins or "bos" in template) + [2] + ours.encode(text), "once, whoever puts it there"


def test_a_file_that_names_no_begin_and_no_end_has_llama_cpps(bases):
    ours = gguf_tokenizer(keys(bases["bytes"], **ggml(bos_token_id=None, eos_token_id=None)))
    assert ours.encode_prompt("fox")[0] == 11
    assert 11 in ours.end_ids
    ended = gguf_tokenizer(keys(bases["bytes"], **ggml(add_eos_token=True)))
    assert ended.encode_prompt("fox") == [0, *ended.encode("fox"), 1]


def test_tokens_that_end_a_turn_are_known_by_their_names(bases):
    def ends(*names, **changes):
        found = keys(bases["bytes"], **changes)
        tokens = found["tokenizer.ggml.tokens"]
        for at, name in enumerate(names, start=len(tokens) - len(names)):
            tokens[at] = name
        used = [merge for merge in found["tokenizer.ggml.merges"] if merge.replace(" ", "") in tokens]
        ours = gguf_tokenizer({**found, "tokenizer.ggml.merges": used})
        return {tokens[i] for i in ours.end_ids}, ours

    assert ends()[0] == {"<|end|>"}
    assert ends("<|eot_id|>", "<|eom_id|>")[0] == {"<|end|>", "<|eot_id|>", "<|eom_id|>"}
    assert ends("<|im_end|>", "<|endoftext|>", "</s>")[0] == {"<|end|>", "<|im_end|>", "<|endoftext|>", "</s>"}
    named = ggml(eos_token_id=4)
    assert ends("<|return|>", "<|call|>", **named)[0] == {"<pad>", "<|return|>", "<|call|>"}, "<|end|> ends a message"
    _, ours = ends("<|im_end|>")
    assert ours.encode("<|im_end|>") != [len(keys(bases["bytes"])["tokenizer.ggml.tokens"]) - 1], "it is control"


def test_gguf_tokenizers_that_are_not_known_are_refused(bases):
    with pytest.raises(ModelFileError, match="tokenizer 'llama' is not supported"):
        gguf_tokenizer(keys(bases["bytes"], **ggml(model="llama")))
    with pytest.raises(ModelFileError, match="pre-tokenizer 'tekken' is not supported"):
        gguf_tokenizer(keys(bases["bytes"], **ggml(pre="tekken")))


def test_types_may_be_absent(bases):
    ours = gguf_tokenizer(keys(bases["bytes"], **ggml(token_type=None)))
    assert ours.end_ids == {1}
    assert math.isclose(len(ours.encode("the fox")), 2, abs_tol=2)
