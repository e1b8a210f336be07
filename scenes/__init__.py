"""What is handed to `manim`: one scene a file, and the modules that know Manim."""
