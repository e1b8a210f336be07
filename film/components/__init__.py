"""What the scenes are made of: lettering, a canvas, the layer that draws it into Manim's frame, and larger parts."""
