"""vLLM's example connector, made to load aside: requests wait for their KV, with the blocks it goes into.

vLLM's own connectors that do so move KV between GPUs or from the memory of a GPU's host. This one reads the files that
the example connector wrote, and says that it is done PASSES passes later.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
from vllm.distributed.kv_transfer.kv_connector.v1.example_connector import (
    ExampleConnector,
    ExampleConnectorMetadata,
    ReqMeta,
)

PASSES = 3


@dataclass
class Loads(ExampleConnectorMetadata):
    """What the scheduler tells the worker: beside the prompts to store, the requests whose KV is to be read."""

    loads: dict[str, ReqMeta] = field(default_factory=dict)


class WaitingConnector(ExampleConnector):
    """Reads KV aside."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._loads: dict[str, ReqMeta] = {}
        self._passes: dict[str, int] = {}

    # In the scheduler.

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        found, _ = super().get_num_new_matched_tokens(request, num_computed_tokens)
        return found or 0, bool(found)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens > 0:
            (table,) = blocks.get_block_ids()
            load = ReqMeta.make_meta(request.prompt_token_ids, table, self._block_size, is_store=False, mm_hashes=[])
            self._loads[request.request_id] = load

    def build_connector_meta(self, scheduler_output: Any) -> Loads:
        stores = super().build_connector_meta(scheduler_output).requests
        loads, self._loads = self._loads, {}
        return Loads(stores, loads)

    # In the worker.

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for request, load in self._get_connector_metadata().loads.items():
            for name, layer in forward_context.no_compile_layers.items():
                file = self._generate_filename_debug(name, load.token_ids, load.mm_hashes)
                places = load.slot_mapping
                kept = safetensors.torch.load_file(file)["kv_cache"]
                layer.kv_cache[places // self._block_size, :, places % self._block_size] = kept
            self._passes[request] = PASSES

    def get_finished(self, finished_req_ids: Iterable[str]) -> tuple[None, set[str]]:
        self._passes = {request: passes - 1 for request, passes in self._passes.items()}
        done = {request for request, passes in self._passes.items() if passes <= 0}
        for request in done:
            del self._passes[request]
        return None, done
