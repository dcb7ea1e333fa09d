"""Deterministic rewordings of a query: the same question in another form, by lists of words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

_FUNCTION_WORDS = {
    "what": "which", "which": "what", "how": "in what way", "why": "for what reason", "is": "might be", "are": "can be",
    "does": "will", "do": "would", "the": "any", "a": "some", "an": "some", "of": "for", "for": "of", "in": "within",
    "to": "so as to", "with": "through", "by": "through", "on": "upon", "from": "out of", "that": "which", "and": "or",
    "was": "had been", "were": "had been", "did": "would", "when": "at what time", "who": "which person",
}  # fmt: skip
_CONTENT_WORDS = {
    "symptoms": "signs", "treatments": "therapies", "treatment": "therapy", "causes": "leads to", "affected": "hit",
    "people": "persons", "research": "studies", "outlook": "prognosis", "diagnose": "detect", "prevent": "avoid",
    "inherited": "hereditary", "information": "details", "increases": "raises", "increase": "raise",
    "decreases": "lowers", "decrease": "lower", "reduces": "lowers", "associated": "linked", "risk": "danger",
    "induces": "triggers", "inhibits": "blocks", "return": "give", "compute": "calculate", "create": "make",
    "get": "fetch", "check": "test", "plot": "draw", "convert": "turn", "called": "named", "type": "kind",
    "begin": "start", "built": "constructed", "largest": "biggest", "many": "numerous", "year": "calendar year",
    "name": "title", "used": "employed", "city": "town",
}  # fmt: skip
_INSERTED = ("actually", "nowadays", "usually", "exactly", "briefly", "generally")


def case_and_punctuation(text: str) -> str:
    """Capitals for small letters, and the opposite marks: none where there were some, some where there were none."""
    bare = re.sub(r"[?.!,;:]+", " ", text)
    return " ".join(bare.upper().split()) if bare != text else f"{text.upper()} ??"


def word_order(text: str) -> str:
    """The second half before the first, as in search boxes."""
    words = text.rstrip("?.! ").split()
    middle = len(words) // 2
    return " ".join([*words[middle:], *words[:middle]])


def function_words(text: str) -> str:
    """Every function word of the list for another one."""
    return _replaced(text, _FUNCTION_WORDS)


def content_words(text: str) -> str:
    """Every content word of the list for a synonym."""
    return _replaced(text, _CONTENT_WORDS)


def inserted_word(text: str) -> str:
    """One word more, in the middle, chosen by the hash of the text."""
    words = text.split()
    word = _INSERTED[hashlib.sha256(text.encode()).digest()[0] % len(_INSERTED)]
    return " ".join([*words[: len(words) // 2], word, *words[len(words) // 2 :]])


def all_forms(text: str) -> str:
    """Function words, order, an inserted word and case at once."""
    return case_and_punctuation(inserted_word(word_order(function_words(text))))


REWORDINGS: Mapping[str, Callable[[str], str]] = {
    "case and punctuation": case_and_punctuation,
    "word order": word_order,
    "function words": function_words,
    "inserted word": inserted_word,
    "all of these": all_forms,
    "content words": content_words,
}


def _replaced(text: str, words: Mapping[str, str]) -> str:
    return re.sub(r"[^\W\d_]+", lambda match: words.get(match.group().lower(), match.group()), text)
