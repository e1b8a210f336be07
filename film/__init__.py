"""The story: what is seen and said at each second of film. Knows traces; knows neither Manim nor torch."""
