"""Words of a text, and their stems."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Kana, Han and Hangul: written without spaces, or with spaces that do not separate words."""
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_RUN = re.compile(r"[^\W_]+")
_PREFIX = 6


def words(text: str) -> list[str]:
    """Runs of letters and digits; where words are written without spaces, each character."""
    return _WORD.findall(text)


def stems(terms: Sequence[str]) -> list[str]:
    """The English stem of each term, which is in lower case (Snowball; Porter, 2001)."""
    import Stemmer

    # A Stemmer object is not safe across threads, and one costs microseconds.
    return Stemmer.Stemmer("english").stemWords(list(terms))


def prefix_stems(text: str) -> list[tuple[str, int]]:
    """The first 6 letters of each word in lower case, and where in the text the word begins.

    The simplest stemmer, for any language that inflects at the end. What models read of long passages depends on it
    (`models.cross_encoder.passage_cut`), so it is no place for another stemmer: models would have to be trained again.
    """
    return [(match.group().lower()[:_PREFIX], match.start()) for match in _RUN.finditer(text)]
