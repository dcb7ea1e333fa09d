"""What is read of a passage: its title and its text."""

from __future__ import annotations


def passage_text(title: str, text: str) -> str:
    """A passage as every model reads it: the title, where there is one, on a line above the text."""
    return f"{title}\n{text}" if title else text
