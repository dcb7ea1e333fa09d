"""Index terms of texts: the words of passages stemmed in their language, those of a query in every language of these.

The words of a passage are stemmed in the language that it is told to be in, and a query is too short to tell: each of
its words stands for its stems in all languages of the corpus, so that it matches the passages of its own language.
docs/decisions/0023-languages.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cache

from models.text.languages import LANGUAGES, Languages, count_votes, tell, voices
from models.text.scripts import SCRIPTS, script_of
from models.text.stop_words import INDEX_STOP_WORDS, STOP_WORDS, UNSPACED_STOP_WORDS
from models.text.words import casefold, find_words, fold, forms_of, stems

_REMEMBERED_CHARACTERS = 2_000_000
"""Of forms whose terms are remembered: some 300,000 words, 60 MB."""
STOP_MARK = "="
"""Before the terms of stop words: they are searched by queries that have no other words, and else as if not there."""


class Tokenizer:
    """Makes the terms of passages and queries of a corpus in some languages."""

    def __init__(self, languages: Languages) -> None:
        self.languages = languages
        self._codes = {name for script in SCRIPTS for name in languages.of_words_in(script)}
        self._terms: dict[tuple[str, str], str] = {}
        self._remembered = 0

    @classmethod
    def of(cls, texts: Sequence[str]) -> Tokenizer:
        """For the languages that these texts are told to be in."""
        return cls(Languages.of(tell(count_votes(map(_forms, texts)))))

    def passages(self, texts: Sequence[str]) -> list[list[str]]:
        """Terms of each text, in order, with repetitions; those of stop words begin with `STOP_MARK`."""
        forms = [_forms(text) for text in texts]
        languages = self.languages.resolve(tell(count_votes(forms))).tolist()
        return [self._of_forms(of_text, spoken) for of_text, spoken in zip(forms, languages, strict=True)]

    def query(self, text: str, without: Container[str] = ()) -> list[tuple[str, ...]]:
        """Of each word of a query the terms that it may have in passages.

        Function words of the language that most words of the query speak for are left out, however few these are, since
        such words are rare ones in other languages; so are forms of `without`. If no word is left, all are taken.
        """
        forms = _forms(text)
        stop_words = [stop_forms(language) for language in self._most_likely(forms)]
        kept = [form for form in forms if form not in without and not any(form in words for words in stop_words)]
        content = [
            tuple(term for term in terms if not term.startswith(STOP_MARK)) for terms in map(self._variants, kept)
        ]
        return [terms for terms in content if terms] or [self._variants(form) for form in forms]

    def _most_likely(self, forms: Sequence[str]) -> list[str]:
        """The languages of the corpus with most different function words among the forms."""
        spoken = voices()
        votes: dict[str, int] = {}
        for form in set(forms):
            for number in spoken.get(form, ()):
                if (name := LANGUAGES[number]) in self._codes:
                    votes[name] = votes.get(name, 0) + 1
        return [name for name, count in votes.items() if count == max(votes.values())]

    def _of_forms(self, forms: Sequence[str], spoken: Sequence[int]) -> list[str]:
        language_of = {script: LANGUAGES[number] for script, number in zip(SCRIPTS, spoken, strict=True)}
        keys = [(form, language_of.get(script_of(form), "")) for form in forms]
        terms = self._known()
        self._learn(terms, [key for key in keys if key not in terms])
        return [terms[key] for key in keys]

    def _variants(self, form: str) -> tuple[str, ...]:
        script = script_of(form)
        keys = [(form, language) for language in (self.languages.of_words_in(script) if script else ("",))]
        terms = self._known()
        self._learn(terms, [key for key in keys if key not in terms])
        return tuple(dict.fromkeys(terms[key] for key in keys))

    def _known(self) -> dict[tuple[str, str], str]:
        """The terms that are remembered; new ones now and then, since callers can make up words for ever. Threads that
        still read the old ones keep them."""
        if self._remembered > _REMEMBERED_CHARACTERS:
            self._terms, self._remembered = {}, 0
        return self._terms

    def _learn(self, known: dict[tuple[str, str], str], keys: Sequence[tuple[str, str]]) -> None:
        by_language: dict[str, list[str]] = {}
        for form, language in dict.fromkeys(keys):
            by_language.setdefault(language, []).append(form)
        for language, forms in by_language.items():
            terms = terms_of(forms, language)
            known.update(((form, language), term) for form, term in zip(forms, terms, strict=True))
            self._remembered += sum(map(len, forms))


def tokenize(texts: Sequence[str]) -> list[list[str]]:
    """Terms of each text without stop words, in order, with repetitions, in the languages of these texts."""
    terms = Tokenizer.of(texts).passages(texts)
    return [[term for term in of_text if not term.startswith(STOP_MARK)] for of_text in terms]


def terms_of(forms: Sequence[str], language: str) -> list[str]:
    """The term of each form in a language, which is empty for what needs none: stems, and stop words with a mark."""
    stop_words = stop_forms(language)
    return [
        STOP_MARK + form if form in stop_words else stem
        for form, stem in zip(forms, stems(forms, language), strict=True)
    ]


def _forms(text: str) -> list[str]:
    return [form for word in find_words(text) for form in forms_of(word)]


@cache
def stop_forms(language: str) -> frozenset[str]:
    """The forms that are stop words in a language."""
    if language == "en":
        return INDEX_STOP_WORDS
    return frozenset(casefold(fold(word)) for word in STOP_WORDS.get(language, UNSPACED_STOP_WORDS))
