"""Index terms of a text: stemmed words without stop words, identifiers also by their parts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from models.text.stop_words import INDEX_STOP_WORDS
from models.text.words import stems

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_POSSESSIVE = re.compile(r"['\u2019]s$", re.IGNORECASE)
_PART_BOUNDARY = re.compile(
    r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)


def tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Index terms of each text, in order, with repetitions."""
    known: dict[str, list[str]] = {}
    tokenized = []
    for text in texts:
        terms: list[str] = []
        for word in _WORD.findall(unicodedata.normalize("NFKC", text)):
            if word not in known:
                kept = [form for form in _forms(word) if form not in INDEX_STOP_WORDS]
                known[word] = stems(kept)
            terms += known[word]
        tokenized.append(terms)
    return tokenized


def _forms(word: str) -> list[str]:
    """The word in lower case and, of an identifier, its parts: `LinAlgError2` also as lin, alg, error, 2."""
    word = re.sub(r"['\u2019]", "", _POSSESSIVE.sub("", word))
    parts = [part for part in _PART_BOUNDARY.split(word) if part]
    if len(parts) == 1:
        return [parts[0].lower()]
    # A letter alone, as the v of v2, says nothing; a digit alone does.
    return [word.lower(), *(part.lower() for part in parts if len(part) > 1 or part.isdigit())] if parts else []
