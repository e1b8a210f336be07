"""What happened: the events of one engine run, how they are stored, checked, measured and asked about.

This package knows neither how an engine works (`tracereel.engine`) nor how a film looks (`tracereel.scenes`), and
imports neither torch nor manim.
"""

from tracereel.trace.events import SCHEMA_VERSION
from tracereel.trace.recorder import Recorder, RecordingError
from tracereel.trace.storage import TraceError
from tracereel.trace.timeline import State, Timeline
from tracereel.trace.trace import Trace

__all__ = ["SCHEMA_VERSION", "Recorder", "RecordingError", "State", "Timeline", "Trace", "TraceError"]
