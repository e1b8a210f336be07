"""Finds the weights that a name on a command line means: a GGUF file, a folder, a hub name, or `random:NAME`."""

import re
from pathlib import Path

from tracereel.engine.model_config import ModelFileError
from tracereel.engine.weights.base import Weights

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors"]


def open_weights(source: str | Path) -> Weights:
    """The weights by their name. Raises ModelFileError where there are none, or of an unsupported kind."""
    name = str(source)
    if name.startswith("random:"):
        from tracereel.engine.weights.random_weights import RandomWeights

        return RandomWeights(name.removeprefix("random:"))
    path = Path(source)
    if path.is_dir():
        from tracereel.engine.weights.hf_folder import HuggingFaceFolder

        return HuggingFaceFolder(path)
    if path.is_file():
        from tracereel.engine.weights.gguf_file import GgufFile

        return GgufFile(path)
    if isinstance(source, str) and _HUB_NAME.fullmatch(name) and path.suffix != ".gguf":
        from tracereel.engine.weights.hf_folder import HuggingFaceFolder

        return HuggingFaceFolder(_downloaded(name), name)
    raise ModelFileError(
        f"{name}: there is no such model; a GGUF file, a folder with config.json, a name on the Hugging Face hub"
        " (OWNER/NAME) or random:NAME is wanted"
    )


def _downloaded(name: str) -> Path:
    """The folder of a model on the Hugging Face hub, from its cache or from the network."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(
            f"{name}: there is no such file or folder, and the Hugging Face hub could not be asked for it ({reason})"
        ) from None
