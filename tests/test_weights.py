"""Where models come from: GGUF files, Hugging Face folders, random geometries; and what is refused, in one line."""

import contextlib
import dataclasses
import json
import math
import struct
import tracemalloc

import families
import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tracereel.engine.loading import load_model
from tracereel.engine.model_config import ModelConfig, ModelFileError, llama3_frequencies, rotary_frequencies
from tracereel.engine.tokenizer import ChatTokenizer
from tracereel.engine.weights import CheckedTensors, open_weights
from tracereel.engine.weights.gguf_file import GgufFile
from tracereel.engine.weights.hf_tokenizer import folder_tokenizer
from tracereel.engine.weights.random_weights import MODEL_CONFIGS

CPU = torch.device("cpu")
TYPES = gguf.GGMLQuantizationType
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def families_made(tmp_path_factory):
    """A folder for each family."""
    made = {}
    for name, family in families.FAMILIES.items():
        made[name] = tmp_path_factory.mktemp("models") / name
        families.make_model(family, made[name])
    return made


def all_tensors(weights):
    tensors = CheckedTensors(weights, CPU, torch.float32)
    return {name: tensors[name] for name in weights.config.tensors()}


def write_gguf(path, weights, *, architecture=None, types=TYPES.F32, merges=("n a",), extra=None, **options):
    """Write a folder's weights as llama.cpp's converter does: Q and K of llama permuted, Llama 3's factors apart."""
    shape = weights.config
    architecture = architecture or shape.architecture
    writer = gguf.GGUFWriter(path, architecture, **options)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_context_length(shape.context)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    letters = [ChatTokenizer.of_bytes(256)._bpe.id_to_token(byte) for byte in range(256)]
    tokens = [*letters, "na", *(f"<|{i}|>" for i in range(257, shape.vocabulary))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * (shape.vocabulary - 257))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(257)
    writer.add_add_bos_token(True)
    writer.add_eos_token_id(258)
    for key, value in (extra or {}).items():
        {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)](key, value)
    plain = rotary_frequencies(shape.head_dim, 10_000.0)
    if shape.rope_frequencies != plain:
        factors = [a / b for a, b in zip(plain, shape.rope_frequencies, strict=True)]
        writer.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    from tracereel.engine.weights.gguf_file import _NAMES

    own = {theirs: ours for ours, theirs in _NAMES.items()}
    for name, tensor in all_tensors(weights).items():
        stem, _, kind = name.removeprefix("model.layers.").rpartition(".")
        layer, _, part = stem.partition(".")
        own_name = f"blk.{layer}.{own[part]}.{kind}" if layer.isdigit() else f"{own[stem]}.{kind}"
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = shape.heads if "q_proj" in name else shape.kv_heads
            rows, columns = tensor.shape
            tensor = tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
        array = tensor.numpy()
        kind_of_tensor = types if array.ndim == 2 else TYPES.F32
        writer.add_tensor(own_name, gguf.quantize(array, kind_of_tensor), raw_dtype=kind_of_tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_gguf_file_and_a_folder_hold_the_same_model(families_made, tmp_path, name):
    folder = open_weights(families_made[name])
    path = tmp_path / "model.gguf"
    write_gguf(path, folder)
    file = open_weights(path)
    for field in ModelConfig.__dataclass_fields__:
        theirs = getattr(folder.config, field)
        if field in ("rope_frequencies", "norm_epsilon"):  # fp32 in the file
            theirs = pytest.approx(theirs, rel=1e-6)
        assert getattr(file.config, field) == theirs, field
    expected = all_tensors(folder)
    for tensor_name, tensor in all_tensors(file).items():
        assert torch.equal(tensor, expected[tensor_name]), tensor_name
    tokenizer = file.tokenizer()
    ids = tokenizer.encode_prompt("naïve 漢字")
    assert ids[:2] == [257, 256]
    stream = tokenizer.stream()
    assert "".join(stream.text(i) for i in ids) == "naïve 漢字"
    assert tokenizer.end_ids == {258}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_quantized_gguf_files_are_near_what_they_were_made_of(tmp_path, kind):
    save_tiny(tmp_path / "folder", hidden_size=64, intermediate_size=96, head_dim=16)
    folder = open_weights(tmp_path / "folder")
    path = tmp_path / "model.gguf"
    write_gguf(path, folder, types=TYPES[kind])
    exact = all_tensors(folder)
    most = {"F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2, "Q4_0": 0.15, "Q4_1": 0.15}[kind]
    for name, tensor in all_tensors(open_weights(path)).items():
        assert (tensor - exact[name]).norm() <= most * exact[name].norm(), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q5_K", "Q8_0"])
def test_every_row_of_a_large_quantized_tensor_is_read(tmp_path, monkeypatch, kind):
    # K-quants cannot be written by the gguf package: blocks of random bytes, and its own reading of them as a whole.
    rows, columns = 40, 512
    size = gguf.quant_shape_to_byte_shape((rows, columns), TYPES[kind])
    data = np.random.default_rng(0).integers(0, 60, size, dtype=np.uint8)  # finite scales
    save_tiny(tmp_path / "folder", hidden_size=columns, head_dim=16, vocab_size=320)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", data, raw_dtype=TYPES[kind])
    write_keys_only(writer)
    monkeypatch.setattr("tracereel.engine.weights.gguf_file._CHUNK_ELEMENTS", 7 * columns)
    file = open_weights(path)
    got = file.read("model.embed_tokens.weight", CPU, torch.float32)
    assert np.array_equal(got.numpy(), gguf.dequantize(data, TYPES[kind]))
    bf16 = file.read("model.embed_tokens.weight", CPU, torch.bfloat16)
    assert torch.equal(bf16, got.bfloat16())


def write_keys_only(writer):
    for key in ("block_count", "embedding_length", "feed_forward_length", "context_length"):
        writer.add_uint32(f"llama.{key}", 64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def save_tiny(folder, **settings):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**families.SIZES, "initializer_range": 0.02, **settings})
    LlamaForCausalLM(config).save_pretrained(folder)


def test_a_sharded_folder_is_sharded(families_made):
    # What the other tests of that family rest on.
    assert len(list(families_made["llama3-rope"].glob("*.safetensors"))) > 2
    assert not (families_made["llama3-rope"] / "model.safetensors").exists()


@pytest.mark.slow
def test_rotary_frequencies_are_those_of_transformers():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    for factor, original, dim in ((8.0, 8192, 128), (32.0, 8192, 64), (4.0, 64, 16)):
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": original,
        }
        theirs, scale = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(head_dim=dim, rope_parameters=rope), CPU)
        ours = llama3_frequencies(
            rotary_frequencies(dim, 500_000.0), factor=factor, low=1.0, high=4.0, original_context=original
        )
        assert scale == 1
        assert ours == pytest.approx(theirs.tolist(), rel=1e-5)


def test_known_geometries_have_as_many_parameters_as_is_said_of_them():
    # From the models' own cards, in millions.
    published = {
        "SmolLM2-135M": 134.5,
        "Qwen2.5-0.5B": 494.0,
        "Qwen3-0.6B": 596.0,
        "Llama-3.2-1B": 1235.8,
        "Llama-3.1-8B": 8030.3,
    }
    assert set(published) == set(MODEL_CONFIGS)
    for name, millions in published.items():
        assert math.isclose(MODEL_CONFIGS[name].parameters / 1e6, millions, rel_tol=1e-3), name


def test_random_weights_are_the_same_every_time_and_say_what_they_are(monkeypatch):
    small = ModelConfig("qwen3", 2, 48, 4, 2, 16, 80, 300, 512, 1e-6, rotary_frequencies(16, 1e4), True, qk_norm=True)
    monkeypatch.setitem(MODEL_CONFIGS, "Tiny", small)
    first, second = load_model("random:tiny", "cpu", "fp32"), load_model("random:Tiny", "cpu", "fp32")
    assert first.info == second.info
    assert (first.info.weights, first.info.name, first.info.architecture) == ("random", "Tiny", "qwen3")
    ours, theirs = all_tensors(open_weights("random:tiny")), all_tensors(open_weights("random:tiny"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    drawn = [tensor for name, tensor in ours.items() if not name.endswith("norm.weight")]
    assert len({tuple(tensor.flatten()[:4].tolist()) for tensor in drawn}) == len(drawn)
    assert ours["model.embed_tokens.weight"].std() == pytest.approx(0.02, rel=0.05)
    text = "naïve 漢字"
    ids = first.tokenizer.encode_chat(text)
    assert bytes(ids) == text.encode()
    stream = first.tokenizer.stream()
    assert "".join(stream.text(i) for i in [*ids, 299]) == text


# What is refused


def change_config(folder, target, **changes):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "architecture 'mistral' is not supported; supported: llama, qwen2, qwen3"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type: 'yarn' is not supported; supported: default, llama3"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "llama3 RoPE scaling needs original_max_position_embeddings"),
        ({"use_sliding_window": True}, "use_sliding_window: True is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported; supported: 'silu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: quantized folders are not supported"),
        ({"hidden_size": -3}, r"config.json: Expected `int` >= 1 - at `\$.hidden_size`"),
        ({"num_key_value_heads": 3}, r"config.json: .*4 heads cannot be shared by 3 KV heads"),
        ({"num_hidden_layers": 9999999}, r"config.json: .*layers: 9999999 is not between 1 and 1024"),
        ({"intermediate_size": 81}, r"mlp.*has the shape \[80, 48\], expected \[81, 48\]"),
        ({"num_hidden_layers": 3}, "the tensor model.layers.2.input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "holds the tensor model.layers.1.input_layernorm.weight, for which 'llama' has no"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_folder_that_cannot_be_run_is_refused(families_made, tmp_path, changes, message):
    folder = change_config(families_made["llama"], tmp_path / "changed", **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(folder, "cpu", "fp32")
    assert "\n" not in str(caught.value)


def test_a_folder_with_files_missing_or_broken_is_refused(families_made, tmp_path):
    with pytest.raises(ModelFileError, match=r"config\.json: cannot be read \(No such file"):
        open_weights(tmp_path)
    (tmp_path / "config.json").write_bytes((families_made["llama"] / "config.json").read_bytes())
    with pytest.raises(ModelFileError, match=r"holds no model\.safetensors"):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x02nothing of the kind")
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../etc/passwd"}}')
    with pytest.raises(ModelFileError, match="a file outside the folder"):
        open_weights(tmp_path)


def test_a_tensor_that_is_no_float_is_refused(families_made, tmp_path):
    folder = change_config(families_made["llama"], tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(48, dtype=torch.int32)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"model\.norm\.weight is torch\.int32"):
        load_model(folder, "cpu", "fp32")


@pytest.mark.slow
def test_gguf_files_that_cannot_be_run_are_refused(families_made, tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"GGUF nothing of the kind")
    with pytest.raises(ModelFileError, match="not a readable GGUF file"):
        open_weights(tmp_path / "no.gguf")
    folder = open_weights(families_made["llama"])
    write_gguf(tmp_path / "gemma.gguf", folder, architecture="gemma")
    with pytest.raises(ModelFileError, match="architecture 'gemma' is not supported; supported: llama, qwen2, qwen3"):
        open_weights(tmp_path / "gemma.gguf")
    write_gguf(tmp_path / "yarn.gguf", folder, extra={"llama.rope.scaling.type": "yarn"})
    with pytest.raises(ModelFileError, match="RoPE scaling 'yarn' is not supported"):
        open_weights(tmp_path / "yarn.gguf")
    write_gguf(tmp_path / "merges.gguf", folder, merges=("q q",))
    with pytest.raises(ModelFileError, match=r"the tokenizer's tables are broken .*`qq` out of vocabulary"):
        open_weights(tmp_path / "merges.gguf").tokenizer()


@pytest.fixture(scope="module")
def whole_gguf(families_made, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(path, open_weights(families_made["llama3-rope"]))
    return path.read_bytes()


@pytest.mark.slow
@given(at=st.integers(0, 16_000), value=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_damaged_gguf_file_is_refused_or_read(whole_gguf, tmp_path_factory, at, value, cut):
    content = bytearray(whole_gguf)
    content[at] = value
    path = tmp_path_factory.mktemp("damaged") / "model.gguf"
    path.write_bytes(content[: at + 1] if cut else content)
    with contextlib.suppress(ModelFileError):  # and nothing else
        file = open_weights(path)
        file.tokenizer().encode_chat("the fox")
        all_tensors(file)


def head_size_bytes(content):
    """Where a GGUF file says how wide a head is: four bytes after the key and its type."""
    key = b".attention.key_length"
    at = content.index(key) + len(key) + 4
    return range(at, at + 4)


def test_a_head_of_any_size_is_refused_before_memory_is_taken_for_it(whole_gguf, tmp_path):
    content = bytearray(whole_gguf)
    content[head_size_bytes(whole_gguf)[2]] = 255
    (tmp_path / "model.gguf").write_bytes(content)
    with at_most_bytes(16e6), pytest.raises(ModelFileError, match=r"head_dim: 16711692 is not between 1 and 512"):
        open_weights(tmp_path / "model.gguf")


@contextlib.contextmanager
def at_most_bytes(limit):
    """What is done within takes no more memory of Python's than this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 2**24}, "head_dim: 16777216 is not between 1 and 512"),
        ({"head_dim": 512, "max_position_embeddings": 2**20}, "context: 1048576 is too long for heads of 512"),
        ({"rms_norm_eps": 1e9}, r"norm_epsilon: 1000000000\.0 is not between 0 and 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_sizes_beyond_any_model_are_refused_before_memory_is_taken_for_them(families_made, tmp_path, changes, message):
    folder = change_config(families_made["llama"], tmp_path / "changed", **changes)
    with at_most_bytes(16e6), pytest.raises(ModelFileError, match=message):
        open_weights(folder)


@pytest.mark.parametrize("theta", [0.0, -5.0, math.nan, math.inf])
def test_a_base_of_frequencies_that_is_not_above_0_is_refused(theta):
    with pytest.raises(ValueError, match=r"theta: .* is not above 0"):
        rotary_frequencies(16, theta)
    with pytest.raises(ValueError, match="the rotary frequencies are not all above 0"):
        ModelConfig("llama", 2, 48, 4, 2, 16, 80, 300, 64, 1e-6, (1.0,) * 7 + (theta,), True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_file_without_an_end_is_refused(families_made, tmp_path, name):
    folder = change_config(families_made["llama"], tmp_path / "changed")
    train_tokenizer(folder)
    (folder / name).unlink()
    with (folder / name).open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(ModelFileError, match=rf"{name}: is larger than [\d,]+ bytes"):
        open_weights(folder).tokenizer()


def test_a_token_whose_id_no_vocabulary_holds_is_refused(families_made, tmp_path):
    folder = change_config(families_made["llama"], tmp_path / "changed")
    train_tokenizer(folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["vocab"]["far"] = 2**32 - 1
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    with at_most_bytes(16e6), pytest.raises(ModelFileError, match="a token has the id 4294967295, at most 4194303"):
        open_weights(folder).tokenizer()


@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_a_tensor_of_another_shape_is_refused_before_it_is_read(families_made, tmp_path, monkeypatch, kind):
    weights = open_weights(families_made["llama"])
    if kind == "gguf":
        write_gguf(tmp_path / "model.gguf", weights)
        weights = open_weights(tmp_path / "model.gguf")
    monkeypatch.setattr(weights, "config", dataclasses.replace(weights.config, intermediate=96))
    monkeypatch.setattr(weights, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ModelFileError, match=r"mlp\.gate_proj\.weight has the shape \[80, 48\], expected \[96, 48\]"):
        CheckedTensors(weights, CPU, torch.float32)["model.layers.0.mlp.gate_proj.weight"]


def test_factors_of_another_number_are_refused_before_they_are_read(families_made, tmp_path, monkeypatch):
    monkeypatch.setattr("tracereel.engine.weights.gguf_file.rotary_frequencies", lambda *_: (1.0,) * 5)
    monkeypatch.setattr(GgufFile, "_dequantize", lambda *_: pytest.fail("they were read"))
    write_gguf(tmp_path / "model.gguf", open_weights(families_made["llama3-rope"]))
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight does not hold 5 factors"):
        open_weights(tmp_path / "model.gguf")


def test_what_stands_before_the_weights_of_a_gguf_file_is_bounded(tmp_path):
    path = tmp_path / "model.gguf"
    most = 64 * 2**20
    key = b"a" + struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8, most)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + key)
        file.truncate(most + 2**20)
    with at_most_bytes(16e6), pytest.raises(ModelFileError, match="over 67,108,864 bytes precede its weights"):
        open_weights(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**16, 0) + bytes(2**22))
    with pytest.raises(ModelFileError, match="it has 65536 tensors and 0 keys; at most 32,768 of each can be"):
        open_weights(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing-here", "there is no such model"),
        ("./no/such/folder", "there is no such model"),
        ("random:gpt-9", "this model is not known; known: Llama-3.1-8B"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name, message):
    with pytest.raises(ModelFileError, match=message):
        open_weights(name)


def test_a_hub_name_without_a_network_gets_one_line(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(name, **_):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach the hub\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelFileError, match=r"could not be asked for it \(cannot reach the hub\)$"):
        open_weights("someone/some-model")


def test_a_hub_name_is_loaded_from_where_it_was_downloaded(monkeypatch, families_made):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(families_made["qwen3"]))
    assert open_weights("someone/some-model").name == "someone/some-model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "slower"),
    [
        ({}, 1),
        ({"llama.rope.scaling.factor": 4.0}, 4),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}, 2),
        ({"llama.rope.scaling.type": "linear"}, 1),
        ({"llama.rope.scale_linear": 8.0}, 8),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, 1),
        ({"llama.rope.scaling.factor": 0.0}, 1),
    ],
)
def test_a_scaling_factor_is_linear_scalings_unless_another_type_is_named(families_made, tmp_path, extra, slower):
    folder = open_weights(families_made["llama"])
    write_gguf(tmp_path / "model.gguf", folder, extra=extra)
    expected = [frequency / slower for frequency in folder.config.rope_frequencies]
    assert open_weights(tmp_path / "model.gguf").config.rope_frequencies == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_parts_of_a_file_and_experts_are_refused_for_what_they_are(families_made, tmp_path):
    folder = open_weights(families_made["llama"])
    write_gguf(tmp_path / "split.gguf", folder, split_max_tensors=9)
    for number in (1, 2, 3):
        with pytest.raises(ModelFileError, match=f"is part {number} of 3 of a split GGUF file"):
            open_weights(tmp_path / f"split-0000{number}-of-00003.gguf")
    write_gguf(tmp_path / "moe.gguf", folder, extra={"llama.expert_count": 4})
    with pytest.raises(ModelFileError, match="a mixture of 4 experts is not supported"):
        open_weights(tmp_path / "moe.gguf")


@pytest.mark.parametrize("change", ["another", "the same", "another shape"])
def test_a_tied_models_other_output_matrix_is_used(families_made, tmp_path, change):
    folder = change_config(families_made["llama"], tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].clone()
    if change == "another":
        head[-1, -1] += 1  # in the very last number
    tensors["lm_head.weight"] = head[:-1].clone() if change == "another shape" else head
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    weights = open_weights(folder)
    assert weights.config.tied == (change == "the same")
    if change == "another shape":
        with pytest.raises(ModelFileError, match=r"lm_head\.weight has the shape \[319, 48\], expected \[320, 48\]"):
            load_model(folder, "cpu", "fp32")
    else:
        assert torch.equal(all_tensors(weights).get("lm_head.weight", head), head)


def test_a_folders_digest_covers_what_decides_about_its_tokens(families_made, tmp_path):
    folder = change_config(families_made["llama"], tmp_path / "changed")
    train_tokenizer(folder)
    digests = [open_weights(folder).digest()]
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        path = folder / name
        content = json.loads(path.read_text()) if path.suffix == ".json" else None
        changed = path.read_text() + " " if content is None else json.dumps(content, indent=3)
        path.unlink()
        path.write_text(changed)
        digests.append(open_weights(folder).digest())
    (folder / "special_tokens_map.json").write_text("{}")
    digests.append(open_weights(folder).digest())
    assert len(set(digests)) == 6


def test_learnt_weights_without_a_tokenizer_are_asked_token_ids_alone(families_made):
    tokenizer = open_weights(families_made["llama"]).tokenizer()
    for encode in (tokenizer.encode, tokenizer.encode_prompt, tokenizer.encode_chat):
        with pytest.raises(ModelFileError, match="llama: the model has no tokenizer"):
            encode("the fox")
    assert tokenizer.stream().text(7) == ""


# Tokenizers


def train_tokenizer(folder):
    """A small byte-level BPE with control tokens and a begin token, saved as transformers saves one."""
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    control = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=310, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["the quick brown fox and the lazy dog, the fox"] * 20, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    theirs = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|begin|>", eos_token="<|end|>")
    theirs.add_tokens(["<think>"])
    theirs.chat_template = TEMPLATE
    theirs.save_pretrained(folder)
    return theirs


def test_a_folders_tokenizer_is_that_of_transformers(families_made, tmp_path):
    folder = change_config(families_made["llama"], tmp_path / "changed", eos_token_id=[1, 3])
    (folder / "generation_config.json").unlink()
    theirs = train_tokenizer(folder)
    ours = open_weights(folder).tokenizer()
    assert ours.end_ids == {1, 3}
    for text in ("the fox", " naïve 漢字 🎬\n", "<think> so"):
        chat = theirs.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        assert ours.encode_chat(text.strip()) == chat
        assert ours.encode_prompt(text) == theirs.encode(text)
        stream = ours.stream()
        assert "".join(stream.text(i) for i in ours.encode(text)) == text
    spelled = ours.encode("the fox<|end|>")
    assert 1 not in spelled, "a control token spelled out in a prompt is text"
    assert ours.stream().text(1) == ""


def test_a_tokenizer_that_is_not_byte_level_streams_its_own_decoders_text(tmp_path):
    pieces = ["<unk>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁the", "▁fox", "es"]
    bpe = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], byte_fallback=True))
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bpe.add_special_tokens(["</s>"])
    bpe.save(str(tmp_path / "tokenizer.json"))
    ours = folder_tokenizer(tmp_path, frozenset({1}), len(pieces))
    ids = [258, 259, 260, *(2 + byte for byte in "漢".encode()), 1]
    stream = ours.stream()
    texts = [stream.text(i, i == 1) for i in ids]
    assert "".join(texts) == " the foxes漢"
    assert texts[3:] == ["", "", "漢", ""]
    cut = ours.stream()
    assert [cut.text(258), cut.text(2 + 0xE6, last=True)] == [" the", "�"]


def test_a_broken_template_is_refused_in_one_line(families_made, tmp_path):
    train_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(ModelFileError, match="chat template is broken"):
        folder_tokenizer(tmp_path, frozenset(), 320)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('only poems') }}")
    with pytest.raises(ModelFileError, match=r"cannot be rendered \(only poems\)"):
        folder_tokenizer(tmp_path, frozenset(), 320).encode_chat("x")
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(ModelFileError, match="cannot be rendered"):
        folder_tokenizer(tmp_path, frozenset(), 320).encode_chat("x")
