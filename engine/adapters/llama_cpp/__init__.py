"""Follows llama.cpp's server from outside: its `/slots`, and the streamed answers to prompts that it may send itself.

    tracereel follow http://127.0.0.1:8080 --prompts prompts.jsonl --out run.jsonl.zst

A step of the trace is the time from one look that saw a slot advance to the next one that did: one pass where the looks
keep up, several where they do not. What no look shows is not in the trace; `ledger` says what that is. Follows
tools/server of llama.cpp, tried with build b11434; a server that was built from its source alone does not say which
build it is. Needs neither llama.cpp nor torch.
"""
