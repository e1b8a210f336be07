"""What a trace says of a model and a device of transformers, by their own account."""

from pathlib import Path
from typing import Any

import torch
from tracereel.engine.adapters.export import dtype_name, read_note
from tracereel.trace.format.events import DeviceInfo, ModelInfo
from tracereel.trace.format.identity import cpu_name

TRIED = ("5.19", "5.23", "5.24")
"""Versions of transformers that this adapter has been tried with."""


def model_info(model: Any) -> ModelInfo:
    """The model by its own name; an export of tracereel's carries a note of where its weights came from."""
    folder = Path(str(model.config._name_or_path or "."))
    note = read_note(folder)
    if note is not None:
        return note.model_info(model.dtype)
    return ModelInfo(
        name=folder.name or "unnamed",
        weights="real" if model.config._name_or_path else "random",
        dtype=dtype_name(model.dtype),
        architecture=model.config.model_type,
        parameters=model.num_parameters(),
    )


def device_info(device: torch.device) -> DeviceInfo:
    """The device by its own name."""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        memory = int(facts.total_memory)
        return DeviceInfo(kind="cuda", name=facts.name, driver=str(torch.version.cuda), memory_bytes=memory)
    return DeviceInfo(kind=device.type, name=cpu_name(), threads=torch.get_num_threads())
