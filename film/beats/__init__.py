"""The beats: one a file, each a function from a show to a beat."""
