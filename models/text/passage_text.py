"""What is read of a passage: its title and its text."""

from __future__ import annotations

CHARACTERS_PER_TOKEN = 32
"""Characters of a text that are read for each token of a model, before its tokenizer looks at them. English has 4 to 5,
indented code some 10: what stands behind is no part of what the model reads, and would cost as if it were."""
SEARCHED_PER_TOKEN = 4 * CHARACTERS_PER_TOKEN
"""The same where the part that a model reads is chosen by the query."""


def passage_text(title: str, text: str) -> str:
    """A passage as every model reads it: the title, where there is one, on a line above the text."""
    return f"{title}\n{text}" if title else text


def beginning(text: str, max_tokens: int) -> str:
    """What a model of `max_tokens` may read of a text."""
    return text[: CHARACTERS_PER_TOKEN * max_tokens]
