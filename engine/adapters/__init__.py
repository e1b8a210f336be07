"""Other engines, the same trace: what records vLLM and transformers without a fork of either.

Each adapter is a module that imports its engine; this package imports neither, nor torch.
"""


class AdapterError(Exception):
    """This run of another engine cannot be recorded; the message is one line that says why, or what to do."""
