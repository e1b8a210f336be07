"""The pipeline, alone."""

from tracereel.scenes.film_scene import FilmScene


class PipelineFlow(FilmScene):
    """The pipeline, alone."""

    name = "pipeline_flow"
