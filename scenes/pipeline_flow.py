"""The pipeline, alone."""

from tracereel.film.beats.pipeline_flow import pipeline_flow
from tracereel.scenes.reel import ReelScene


class PipelineFlow(ReelScene):
    """The pipeline, alone."""

    def construct(self) -> None:
        """Tell it."""
        self.tell(pipeline_flow(self.show))
