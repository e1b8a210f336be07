"""Records SGLang by its own plugins. Tried with 0.5.23 on a CPU.

    TRACEREEL_SGLANG=run python -m sglang.launch_server --model-path MODEL

SGLang calls `plugin.plugin` in each of its processes, as an entry point of the group `sglang.srt.plugins`. `run` is a
folder, in which each scheduler of a first rank writes a trace. Recorded are the schedule and the results of each batch:
`Scheduler.get_next_batch_to_run` and `process_batch_result`, with overlap scheduling or without.

Refused, in one line of SGLang's log: speculative decoding, pipeline parallelism, data-parallel attention, prefill and
decode on different servers, diffusion models, embeddings; a request for beams ends the recording. Left out: block
tables, and KV in use of models that keep several kinds of KV.
"""
