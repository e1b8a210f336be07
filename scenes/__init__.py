"""What is handed to `manim`: one scene a file, and the one module that knows Manim."""
