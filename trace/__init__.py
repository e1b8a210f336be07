"""What happened: the events of one engine run, how they are stored, checked, measured and asked about.

This package knows neither how an engine works (`tracereel.engine`) nor how a film looks (`tracereel.film`), and
imports neither torch nor manim. `Recorder` writes a trace, `Trace.read` reads one, `Timeline(trace).at(t)` is the state
at an instant. What else may be imported, and from where, is listed in ARCHITECTURE.md.

`__version__` is tracereel's: `tracereel` is a namespace package and can hold no names of its own.
"""

from importlib.metadata import version

from tracereel.trace.format.events import SCHEMA_VERSION
from tracereel.trace.format.recorder import Recorder, RecordingError
from tracereel.trace.format.storage import TraceError
from tracereel.trace.state.columns import Trace
from tracereel.trace.state.timeline import State, Timeline

__version__ = version("tracereel")
"""The installed version of tracereel."""

__all__ = [
    "SCHEMA_VERSION",
    "Recorder",
    "RecordingError",
    "State",
    "Timeline",
    "Trace",
    "TraceError",
    "__version__",
]
