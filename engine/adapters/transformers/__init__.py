"""Records transformers: its continuous batching (`generate_batch`) and its `generate` on a padded batch.

    from tracereel.engine.adapters.transformers import attach

    with attach(model, "run.jsonl.zst", tokenizer=tokenizer):
        model.generate_batch(inputs, generation_config=...)

What is recorded of `generate_batch`, with either of its schedulers: its steps from the preparation of a batch until its
tokens are there, who was in them, what was offloaded to make room, the block tables. `generate` is recorded as what it
is, static batching: a batch is closed when it begins, rows that have ended are computed until the last one ends, and
the shorter prompts are padded; all of that is counted as padding.

The model's own methods are wrapped on this one object while it is attached. Knows transformers' continuous batching as
of the versions in `header.TRIED`. Does not know forks of one prompt (`num_return_sequences`), beams, or the device's
work. Blocks are left out where transformers shares prefixes: it then swaps blocks of a table for equal ones, which a
trace cannot say; how many are held is recorded all the same.
"""

from tracereel.engine.adapters.transformers.recording import Recording, attach

__all__ = ["Recording", "attach"]
