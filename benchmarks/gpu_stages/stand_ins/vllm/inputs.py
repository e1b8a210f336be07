"""Prompts as vLLM takes them."""

TokensPrompt = dict
