"""The page's program and style: the ES modules of `web/` put into one script, as they are.

Each module becomes a function that runs once and returns what the module exports; an import becomes the taking of those
names. Only the plainest forms are understood (`import { a, b } from "./x.js"`, `export function|class|const`): anything
else is refused, so that nothing is bundled wrongly. Knows text alone.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from tracereel.player.errors import PlayerError

ENTRY = "app.js"
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|class|const) (\w+)", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_WEB = files("tracereel.player") / "web"


@cache
def program() -> str:
    """The whole program as one module script."""
    return bundle({path.name: path.read_text("utf-8") for path in _WEB.iterdir() if path.name.endswith(".js")}, ENTRY)


@cache
def web_text(name: str) -> str:
    """A file of `web/`."""
    return (_WEB / name).read_text("utf-8")


def bundle(modules: Mapping[str, str], entry: str) -> str:
    """The modules that `entry` needs, each before those that use it. Raises PlayerError for a form not understood."""
    order: list[str] = []
    _visit(entry, modules, order, ())
    return "\n".join(_wrapped(name, modules[name]) for name in order)


def _visit(name: str, modules: Mapping[str, str], order: list[str], above: tuple[str, ...]) -> None:
    if name in above:
        raise PlayerError(f"web/{above[-1]} imports web/{name}, which needs it itself")
    if name not in modules:
        raise PlayerError(f"web/{above[-1]} imports web/{name}, which is not there")
    if name in order:
        return
    for found in _IMPORT.finditer(modules[name]):
        _visit(found[2], modules, order, (*above, name))
    order.append(name)


def _wrapped(name: str, source: str) -> str:
    exports = [found[2] for found in _EXPORT.finditer(source)]
    body = _IMPORT.sub(lambda found: f"const {{{' '.join(found[1].split())}}} = {_variable(found[2])};\n", source)
    body = _EXPORT.sub(r"\1 \2", body)
    if other := _OTHER.search(body):
        raise PlayerError(f"web/{name}: {other[0]!r} is a form that is not bundled")
    if "</script" in body or "<!--" in body:
        raise PlayerError(f"web/{name}: </script and <!-- would end the script in the page")
    return f"const {_variable(name)} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();"


def _variable(name: str) -> str:
    return "module_" + name.removesuffix(".js").replace("-", "_")
