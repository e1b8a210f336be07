"""The one error of this package."""


class PlayerError(Exception):
    """A page cannot be made, read or verified; the message is one line."""
