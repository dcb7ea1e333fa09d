"""Which language a text is in, offline: py3langid, a naive Bayes over byte n-grams (Lui and Baldwin, 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED = "und"
"""ISO 639 code of text whose language cannot be told, as code and tables."""

_MIN_PROBABILITY = 0.5
_READ = 500
"""Characters that are looked at: more do not change the answer."""


def languages(texts: Iterable[str]) -> list[str]:
    """ISO 639-1 code of each text, `und` where the best guess has a probability below one half."""
    identifier = _identifier()
    guesses = (identifier.classify(text[:_READ]) for text in texts)
    return [str(code) if probability >= _MIN_PROBABILITY else UNDETERMINED for code, probability in guesses]


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
