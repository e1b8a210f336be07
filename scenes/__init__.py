"""What it looks like: films of traces, drawn by Manim.

Reads traces through `tracereel.trace` alone; never imports the engine, and so never torch. One film beat a file here,
what they share in `components`.
"""
