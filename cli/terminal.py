"""What may reach a terminal: text from a trace is data, and must not move the cursor or change colours."""


def printable(text: str) -> str:
    """The text with every character that is not printable written as its escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
