"""The same recordings in a browser: one HTML file that needs no network, no server and no further program.

`build_page` makes it from traces, `verify_page` asks again whether all of it is what the traces say; in a notebook
`show` displays it and `film` renders a scene. The page's program is plain ES modules, style sheet and Canvas (`web/`),
put into the file as it is. Knows traces, their queries, and the films' palette and words; never Manim, torch or the
engine.
"""

from tracereel.player.errors import PlayerError
from tracereel.player.notebook import Film, Player, film, show
from tracereel.player.page import build_page
from tracereel.player.verification import verify_page

__all__ = ["Film", "Player", "PlayerError", "build_page", "film", "show", "verify_page"]
