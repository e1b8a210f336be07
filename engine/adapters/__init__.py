"""Other engines, the same trace: what records vLLM and transformers without a fork of either.

Each adapter imports its engine only when that engine is there; this package imports neither, nor torch.
"""
