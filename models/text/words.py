"""Words of a text in any script, and their stems: one definition for index, answers and truncation.

A word is a run of letters and digits with the marks on them; format characters (soft hyphen, zero-width joiner) are
part of it and are taken out. Where words are written without spaces, or with spaces that do not separate them, pairs of
neighbouring characters stand for words (McNamee and Mayfield, "Character N-Gram Tokenization for European Language Text
Retrieval", 2004; Chinese: Nie, Gao, Zhang and Zhou, "On the use of words and n-grams for Chinese information
retrieval", 2000).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from re import Pattern

_SIGNS = r"\+\+|[+#](?![\w+#])"
"""They end a name: C++, C#, A+."""
_DOT = r"(?<![^\s(\[{,;|/\"'])\."
"""It begins a name: .NET, .gitignore."""
_POINT = r"(?<=\d)\.\d\w*"
"""It goes on after a digit: 2.10.1."""
_VERSION = re.compile(r"[vV]?\d+(?:\.\d+)+")
_ASCII_WORD = re.compile(rf"(?:{_DOT}(?=[A-Za-z]))?\w+(?:'\w+|{_POINT})*(?:{_SIGNS})?", re.ASCII)
_SIMPLE_WORD = re.compile(rf"(?:{_DOT}(?=[^\W\d_]))?\w+(?:['\u2019]\w+|{_POINT})*(?:{_SIGNS})?")
_SIMPLE_TEXT = re.compile(
    r"[\0-\xac\xae-\u02ff\u0370-\u0482\u048a-\u0588\u1e00-\u1fff\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2190-\u2bff]*"
)
"""Latin, Greek, Cyrillic and Armenian without combining marks or format characters."""
_ASCII_RUN = re.compile(rf"[^\W_]+(?:{_SIGNS})?", re.ASCII)

_POSSESSIVE = re.compile(r"['\u2019]s$", re.IGNORECASE)
_ELISION = re.compile(
    r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|(?:[dns]e|a|co|da|su)ll|un|gl|quest|bell|sant)['\u2019](?=\w{2})",
    re.IGNORECASE,
)
"""Articles and pronouns of French, Italian and Catalan, written as a part of the next word."""
_PART_BOUNDARY = re.compile(
    r"_+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)
_ALIKE = str.maketrans("ёЁ\u2019", "еЕ'")
_UNSPACED = "Han Hiragana Katakana Hangul Thai Lao Khmer Myanmar".split()
"""Scripts without spaces, or with spaces that do not separate words."""
_PREFIX = 6


class _Patterns(NamedTuple):
    """What finds words in texts that are not ASCII."""

    word: Pattern[str]
    run: Pattern[str]
    ignored: Pattern[str]
    unspaced: Pattern[str]
    cluster: Pattern[str]


@cache
def _patterns() -> _Patterns:
    # `re` knows neither scripts nor categories; its \w ends a word at a vowel sign.
    import regex

    scripts = "".join("\\p{Script=" + name + "}" for name in _UNSPACED)
    unspaced = rf"[[{scripts}\u30fc\uff70\uff9e\uff9f]&&[\p{{L}}\p{{M}}\p{{N}}\p{{So}}]]"
    inside = rf"[[\p{{L}}\p{{N}}\p{{M}}\p{{Cf}}_\u3300-\u33ff\u2116\u2103\u2109]--{unspaced}]"
    letter = rf"[{inside}--[\p{{M}}\p{{Cf}}]]"
    quote = rf"['\u2019](?={letter})"
    point = r"(?<=\p{Nd})\.(?=\p{Nd})"
    without_spaces = rf"{unspaced}[{unspaced}\p{{M}}\p{{Cf}}]*"

    def compiled(pattern: str) -> Any:
        return regex.compile(pattern, regex.V1)

    signs = r"\+\+|\uff0b\uff0b|[+#\uff0b\uff03](?![\w+#])"
    return _Patterns(
        compiled(rf"{without_spaces}|(?:{_DOT}(?=\p{{L}}))?{letter}(?:{inside}|{quote}|{point})*(?:{signs})?"),
        compiled(rf"{unspaced}[\p{{M}}\p{{Cf}}]*|[{letter}--_][{inside}--_]*(?:{signs})?"),
        compiled(r"[\p{Cf}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\u0640\u064b-\u065f\u0670\u0591-\u05bd\u05bf-\u05c7]+"),
        compiled(unspaced),
        compiled(r"\X"),
    )  # fmt: skip


def fold(word: str) -> str:
    """A word in its one way to write it but for case: composed, without format characters and optional vowel points."""
    if word.isascii():
        return word
    word = unicodedata.normalize("NFKC", _patterns().ignored.sub("", word)).translate(_ALIKE)
    return "".join(str(unicodedata.decimal(character, character)) for character in word)


def casefold(word: str) -> str:
    """A folded word without case; the Turkish capital I with a dot becomes an i."""
    return word.lower() if word.isascii() else unicodedata.normalize("NFC", word.casefold().replace("i\u0307", "i"))


def words(text: str) -> list[str]:
    """Runs of letters and digits; where words are written without spaces, each character with its marks."""
    return [word for word, _ in _runs(text)]


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script that is written without spaces."""
    return not word.isascii() and bool(_patterns().unspaced.match(word))


def count_words(text: str) -> int:
    """How many words a text has: runs without white space; where no spaces are written, half of the characters."""
    if text.isascii():
        return len(text.split())
    unspaced = _patterns().unspaced
    return sum(max(1, (len(unspaced.findall(run)) + 1) // 2) for run in text.split())


def find_words(text: str) -> list[str]:
    """The words of a text as they stand there; what is written without spaces as a whole."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    # Ten times as fast as the other, for scripts with spaces and without marks.
    return (_SIMPLE_WORD if _SIMPLE_TEXT.fullmatch(text) else _patterns().word).findall(text)


def forms_of(word: str) -> list[str]:
    """The forms by which a word of `find_words` is indexed, not stemmed.

    It in lower case and, of an identifier, its parts: `LinAlgError2` also as lin, alg, error, 2. What is written
    without spaces gives pairs of neighbouring characters, and the Chinese characters alone.
    """
    return _word_forms(word) if word.isascii() else _forms(word)


def _forms(raw: str) -> list[str]:
    word = fold(raw)
    patterns = _patterns()
    if patterns.unspaced.match(raw):
        return _ngrams(word)
    if word != raw and len(pieces := patterns.word.findall(word)) != 1:  # as of the fraction 1/2
        return [form for piece in pieces for form in _word_forms(piece)]
    return _word_forms(word)


def _word_forms(word: str) -> list[str]:
    if "." in word:
        if word[0] == ".":
            return [casefold(word), *_word_forms(word[1:])]
        if not _VERSION.fullmatch(word):
            return [form for part in word.split(".") for form in _word_forms(part)]
        version = word.lstrip("vV")
        return [version, *version.split(".")]
    if "'" in word or "\u2019" in word:
        word = re.sub(r"['\u2019]", "", _ELISION.sub("", _POSSESSIVE.sub("", word)))
    name = word.rstrip("+#")
    if name != word:
        # A letter alone with its signs is another word than the letter.
        return [casefold(word), *(_word_forms(name) if len(name) > 1 else [])]
    parts = [part for part in _PART_BOUNDARY.split(word) if part]
    if len(parts) == 1:
        return [casefold(parts[0])]
    # A letter alone, as the v of v2, says nothing; a digit alone does.
    return [casefold(word), *(casefold(part) for part in parts if len(part) > 1 or part.isdigit())] if parts else []


def _ngrams(run: str) -> list[str]:
    characters = [casefold(character) for character in _patterns().cluster.findall(run)]
    if len(characters) == 1:
        return characters
    return [*(first + second for first, second in pairwise(characters)), *filter(_is_han, characters)]


def _is_han(character: str) -> bool:
    return "\u3400" <= character[0] <= "\u9fff" or character[0] >= "\U00020000"


def stems(terms: Sequence[str], language: str = "en") -> list[str]:
    """The stem of each term, which is in lower case (Snowball; Porter, 2001); itself where there is no stemmer."""
    import Stemmer

    # A Stemmer object is not safe across threads, and one costs microseconds.
    return Stemmer.Stemmer(STEMMERS[language]).stemWords(list(terms)) if language in STEMMERS else list(terms)


STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish",
    "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
"""Snowball's stemmers by ISO 639-1 code."""


def prefix_stems(text: str) -> list[tuple[str, int]]:
    """The first 6 letters of each word in lower case, and where in the text the word begins.

    The simplest stemmer, for any language that inflects at the end; pairs of characters where no spaces are written.
    What models read of long passages depends on it (`models.cross_encoder.passage_cut`), so it is no place for another
    stemmer: models would have to be trained again.
    """
    if text.isascii():
        return [(match.group().lower()[:_PREFIX], match.start()) for match in _ASCII_RUN.finditer(text)]
    stemmed: list[tuple[str, int]] = []
    unspaced = _patterns().unspaced
    before, before_start, before_end = "", -1, -1
    for word, start in _runs(text):
        folded, end = casefold(fold(word)), start + len(word)
        if not unspaced.match(word):
            stemmed.append((folded[:_PREFIX], start))
            continue
        if start == before_end:
            stemmed.append((before + folded, before_start))
        elif not unspaced.match(text, end):  # alone
            stemmed.append((folded, start))
        before, before_start, before_end = folded, start, end
    return stemmed


def _runs(text: str) -> Iterator[tuple[str, int]]:
    pattern = _ASCII_RUN if text.isascii() else _patterns().run
    return ((match.group(), match.start()) for match in pattern.finditer(text))
