"""A trace as columns, and the whole state of the engine at any instant."""
