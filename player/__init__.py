"""The same recordings in a browser: one HTML file that needs no network, no server and no further program.

`build_page` makes it from trace files, `verify_page` asks again whether all of it is what the traces say, `show` puts
it into a notebook. The page's program is plain ES modules, style sheet and Canvas (`web/`), put into the file as it is.
Knows traces, their queries, and the films' palette and words; never Manim, torch or the engine.
"""
