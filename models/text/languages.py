"""Which languages a corpus is in, told from the function words of its passages, script by script.

A language is told by its words of the closed classes, which no text of some length avoids (Grefenstette, "Comparing two
language identification schemes", 1995). That costs an index a tenth of the time that `models.text.language` would take,
which knows more languages, and needs nothing that serving does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from models.text.scripts import SCRIPT_OF_LANGUAGE, SCRIPTS
from models.text.stop_words import FUNCTION_WORDS, STOP_WORDS
from models.text.words import casefold, fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_WORDS = 3
"""Different function words that a language needs to be told."""
_FEW = 0.01
"""A language of fewer passages than this share is chance."""

LANGUAGES = sorted(SCRIPT_OF_LANGUAGE)
"""What the columns of votes are, and the numbers of languages that were told."""
UNTOLD = -1


@cache
def voices() -> dict[str, list[int]]:
    """The languages (places in `LANGUAGES`) that have a form as a function word.

    Letters alone do not speak for a language: they are names of variables as well.
    """
    voices: dict[str, list[int]] = {}
    for number, language in enumerate(LANGUAGES):
        stop_words = FUNCTION_WORDS if language == "en" else STOP_WORDS[language]
        for word in {casefold(fold(word)) for word in stop_words}:
            if len(word) > 1 or not word.isascii():
                voices.setdefault(word, []).append(number)
    return voices


def count_votes(texts: Iterable[Iterable[str]]) -> NDArray[np.int64]:
    """How many different function words of each language each text, given as its forms, has [texts, languages]."""
    spoken = voices()
    rows = [
        np.bincount(
            [number for form in spoken.keys() & set(forms) for number in spoken[form]], minlength=len(LANGUAGES)
        )
        for forms in texts
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(LANGUAGES))


def tell(votes: NDArray[np.int64], wanted: Sequence[str] = ()) -> NDArray[np.int64]:
    """The language of each text in each script [texts, scripts], by its votes; `UNTOLD` for few votes and equal ones.

    Where languages are `wanted`, it is one of these.
    """
    told = np.full((len(votes), len(SCRIPTS)), UNTOLD)
    for script, languages in enumerate(SCRIPTS.values()):
        columns = np.array(
            [LANGUAGES.index(name) for name in languages if name in (wanted or languages)], dtype=np.int64
        )
        if len(columns):
            of_script = votes[:, columns]
            most = of_script.max(axis=1, keepdims=True)
            clear = (most[:, 0] >= _MIN_WORDS) & ((of_script == most).sum(axis=1) == 1)
            told[clear, script] = columns[of_script[clear].argmax(axis=1)]
    return told


@dataclass(frozen=True)
class Languages:
    """The languages of a corpus, those of each script by frequency; the first is that of texts too short to tell."""

    of_script: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, told: NDArray[np.int64], wanted: Sequence[str] = ()) -> Languages:
        """Those told of at least 1 % of the texts [texts, scripts], or the `wanted`; the most frequent first."""
        counts = np.bincount(told[told != UNTOLD], minlength=len(LANGUAGES))
        enough = max(_FEW * len(told), 1)
        kept = wanted or [name for name, count in zip(LANGUAGES, counts, strict=True) if count >= enough]
        return cls(
            {
                script: tuple(sorted(set(names) & set(kept), key=lambda name: (-counts[LANGUAGES.index(name)], name)))
                for script, names in SCRIPTS.items()
            }
        )

    def of_words_in(self, script: str) -> tuple[str, ...]:
        """The languages of the words in a script; of a script that no passage has, the one that stands for it."""
        return self.of_script.get(script) or SCRIPTS[script][:1]

    def resolve(self, told: NDArray[np.int64]) -> NDArray[np.int64]:
        """The languages [texts, scripts] that the texts are read in, of those of the corpus."""
        resolved = told.copy()
        for script, name in enumerate(SCRIPTS):
            columns = [LANGUAGES.index(language) for language in self.of_words_in(name)]
            resolved[~np.isin(told[:, script], columns), script] = columns[0]
        return resolved
