"""What a program needs of the engine, in one import. `docs/engine.md` shows how it goes together."""

from tracereel.engine.config import ConfigError, EngineConfig
from tracereel.engine.engine import Engine, EngineMetrics, Output
from tracereel.engine.generation import Completion, generate
from tracereel.engine.loading import LoadedModel, load_model
from tracereel.engine.model_config import ModelFileError
from tracereel.engine.online import EngineStoppedError, OnlineEngine, Stream
from tracereel.engine.request import Request, RequestError, SamplingParams, TokenLogprobs
from tracereel.engine.scheduler import NeverFitsError

__all__ = [
    "Completion",
    "ConfigError",
    "Engine",
    "EngineConfig",
    "EngineMetrics",
    "EngineStoppedError",
    "LoadedModel",
    "ModelFileError",
    "NeverFitsError",
    "OnlineEngine",
    "Output",
    "Request",
    "RequestError",
    "SamplingParams",
    "Stream",
    "TokenLogprobs",
    "generate",
    "load_model",
]
