"""The scenes there are: each is registered once, by a decorator on the function that makes its beat.

Knows names, suites and the order of scenes in films. Makes no beat and draws nothing; a scene outside the package
registers itself in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tracereel.film.beat import Beat
from tracereel.film.phrases import add_words
from tracereel.film.show import Show
from tracereel.trace.recordings.index import FILM

BeatMaker = Callable[[Show], Beat]
CONTINUOUS_BATCHING, FULL_LENGTH = "continuous_batching", "full_length"
"""The films: the short one, and the one of everything."""
FILM_NAMES = (CONTINUOUS_BATCHING, FULL_LENGTH)


class UnknownSceneError(Exception):
    """No scene has that name; the message is one line."""


@dataclass(frozen=True)
class Scene:
    """A registered scene.

    `suite` is the one whose recordings it plays; `films` are those that it belongs to, where it stands by its `order`.
    `continuous_batching` leaves it out where one of the cases in `needs` was not recorded.
    """

    name: str
    make: BeatMaker
    suite: str
    order: int
    films: tuple[str, ...]
    needs: tuple[str, ...]
    stretch: BeatMaker | None = None
    """Makes the beat of the stretch that the show's settings ask for; None where the scene shows whole runs alone."""


_scenes: dict[str, Scene] = {}


def scene(
    name: str,
    *,
    suite: str = FILM,
    order: int = 0,
    films: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    words: Mapping[str, Mapping[str, str]] | None = None,
    stretch: BeatMaker | None = None,
) -> Callable[[BeatMaker], BeatMaker]:
    """Register the function below as the scene `name` (lower case, words joined by `_`).

    `words` are the scene's own by language and key, said as `say("<name>.<key>")`; the package's scenes have theirs in
    text/<language>.toml. `stretch` makes the beat where a stretch of one run is asked for. Raises ValueError for a name
    that another function has already.
    """

    def register(make: BeatMaker) -> BeatMaker:
        there = _scenes.get(name)
        if there is not None and there.make.__module__ != make.__module__:
            raise ValueError(f"the scene {name!r} is already registered by {there.make.__module__}")
        _scenes[name] = Scene(name, make, suite, order, films, needs, stretch)
        if words:
            add_words(name, words)
        return make

    return register


def registered() -> tuple[Scene, ...]:
    """All scenes that have been registered so far, in the order in which films show them."""
    return tuple(sorted(_scenes.values(), key=lambda scene: scene.order))


def scenes_of(film: str) -> tuple[Scene, ...]:
    """The scenes of a film, in its order."""
    return tuple(scene for scene in registered() if film in scene.films)


def find(name: str) -> Scene:
    """The scene of that name. Raises UnknownSceneError that lists the films and scenes there are."""
    if name not in _scenes:
        there = (*FILM_NAMES, *(scene.name for scene in registered()))
        raise UnknownSceneError(f"{name!r} is not a scene; there are: {', '.join(there)}")
    return _scenes[name]


def class_name(name: str) -> str:
    """What the Manim class of a scene is called, and the files that it renders: `KvCachePaging`."""
    return "".join(part.capitalize() for part in name.split("_"))
