"""The trace on disk: its events, how they are written and read, and the schema."""
