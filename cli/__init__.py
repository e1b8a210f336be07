"""The `tracereel` command: thin, one module a command; each imports what it needs only when it runs."""
