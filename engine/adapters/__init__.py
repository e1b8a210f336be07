"""Other engines, the same trace: what records vLLM, SGLang, transformers and llama.cpp's server without a fork of any.

Each adapter is a package that imports its engine alone; this one imports none, nor torch.
"""


class AdapterError(Exception):
    """This run of another engine cannot be recorded; the message is one line that says why, or what to do."""
