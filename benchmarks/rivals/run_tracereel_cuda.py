"""tracereel's engine on a GPU, a geometry with random weights, no recorder; it leaves memory to another engine."""

from run_tracereel import serve
from tracereel.engine.config import EngineConfig
from tracereel.engine.loading import load_model
from tracereel.engine.memory import sized


def start(model, slots):
    """Make the model; returns what runs a job."""
    loaded = load_model(f"random:{model}", "cuda", "bf16")
    config = EngineConfig(max_num_seqs=slots, max_num_batched_tokens=16384, max_model_len=2064)
    config = sized(config, loaded.model, 0.4)
    return serve(loaded, config, loaded.runner(config))
