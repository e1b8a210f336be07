"""The story: what is seen and said at each second of film. Knows traces; knows neither Manim nor torch.

Public interface; everything else may change between versions:

- `tracereel.film.registry`: `scene` registers a function from a `Show` to a `Beat`.
- `tracereel.film.show.Show`: recordings, stage, words, palette, settings. `tracereel.film.beat`: `Beat`, `Caption`.
- `tracereel.film.clock.Script`: film time to engine time. `tracereel.film.phrases`: `figure`, `quote`.
- `tracereel.film.canvas.Canvas`: what a beat draws on, and what another renderer implements. `tracereel.film.theme`.
- `tracereel.film.storyboards.storyboard`: the beats of a scene or a film. `tracereel.film.frames.BeatFrames`: frames
  of a beat without Manim.
"""
