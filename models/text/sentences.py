"""Sentences of a text, by its punctuation, lines and lists."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST = 400
"""Characters above which a sentence is split at its line ends."""

_END = re.compile(
    r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s+(?![a-zß-ÿ])\S)"  # the next sentence does not start in lower case
    "|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\u2019]*"  # full-width stop, exclamation and question marks
    r"|\n[ \t]*\n"
    r"|\n[ \t]*[-=~^*#_]{3,}[ \t]*(?=\n|\Z)"  # heading underlines and rules
    r"|\n(?=[ \t]*(?:[-*•]|\d+[.)])\s)"
)
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|fig|eq|dr|mr|mrs|ms|prof|st|al|approx)|\b[A-Z])\.$", re.IGNORECASE)


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence, without surrounding white space; `text[start:end]` is the sentence."""
    begin = 0
    for match in _END.finditer(text):
        by_line = text[match.start()] == "\n"
        end = match.start() if by_line else match.end()
        if not by_line and _ABBREVIATION.search(text[max(begin, end - 12) : end]):
            continue
        yield from _pieces(text, begin, end)
        begin = match.end()
    yield from _pieces(text, begin, len(text))


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    if end - begin > LONGEST and (line := text.find("\n", begin + 1, end)) != -1:
        yield from _pieces(text, begin, line)
        yield from _pieces(text, line, end)
        return
    piece = text[begin:end]
    if stripped := piece.strip():
        start = begin + piece.index(stripped[0])
        yield start, start + len(stripped)
