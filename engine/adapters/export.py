"""The default model as a folder that transformers and vLLM can load, with a note of where its weights came from.

The GGUF file is dequantized by transformers and saved as bf16, so that all engines decode with the same weights. The
note in the folder names the file they were taken from, by hash, and the hash of what was saved: a folder that was
changed since is not taken for the same model. Reading a note needs no torch.
"""

import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec
from tracereel.trace.format.events import ModelInfo
from tracereel.trace.format.identity import file_digest

NOTE = "tracereel.json"
WEIGHTS = "model.safetensors"


class Note(msgspec.Struct, frozen=True):
    """What a folder's weights are: the model's name, the digest of the file they come from, and their own."""

    name: str
    digest: str
    architecture: str
    parameters: int
    weights_sha256: str
    weights: Literal["real", "random"] = "real"

    def model_info(self, dtype: object) -> ModelInfo:
        """The model as a trace names it, computed in this dtype of torch's."""
        return ModelInfo(
            name=self.name,
            weights=self.weights,
            dtype=dtype_name(dtype),
            digest=self.digest,
            architecture=self.architecture,
            parameters=self.parameters,
        )


def dtype_name(dtype: object) -> str:
    """A trace's name of one of torch's dtypes: bf16, fp16, fp32, or torch's own."""
    name = str(dtype).removeprefix("torch.")
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(name, name)


def read_note(folder: Path) -> Note | None:
    """The note of a model folder; None where there is none, or the weights are not those that it speaks of."""
    try:
        note = msgspec.json.decode((folder / NOTE).read_bytes(), type=Note)
        return note if file_digest(folder / WEIGHTS) == note.weights_sha256 else None
    except (OSError, msgspec.DecodeError):
        return None


def exported_model(file: Path) -> Path:
    """The export of a model file that lies in the cache, made where it is not there yet."""
    return export_model(file, file.parent / f"{file.name.removesuffix('.gguf')}-bf16")


def export_model(file: Path, folder: Path) -> Path:
    """Export a GGUF file of llama architecture into `folder` in bf16, whole or not at all; returns the folder.

    A folder that holds this very model already is left as it is. Raises ModuleNotFoundError without transformers.
    """
    digest = file_digest(file)
    note = read_note(folder)
    if note is not None and note.digest == digest:
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    print(f"exporting {file.name} to {folder}", file=sys.stderr, flush=True)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # A fresh model of the same shape: the loaded one says that it is quantized, which its tensors no longer are.
    shape = {
        name: value
        for name, value in loaded.config.to_dict().items()
        if name not in ("quantization_config", "_name_or_path")
    }
    model: Any = LlamaForCausalLM(LlamaConfig(**shape))
    model.to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(fresh)
    AutoTokenizer.from_pretrained(**source).save_pretrained(fresh)
    fresh_note = Note(
        name=file.name.removesuffix(".gguf"),
        digest=digest,
        architecture=str(model.config.model_type),
        parameters=model.num_parameters(),
        weights_sha256=file_digest(fresh / WEIGHTS),
    )
    (fresh / NOTE).write_bytes(msgspec.json.encode(fresh_note) + b"\n")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder
