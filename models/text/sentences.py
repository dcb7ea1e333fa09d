"""Sentences of a text in any script, by its punctuation, lines and lists.

A full stop ends no sentence behind an abbreviation, an initial or the number of a list, nor before a lower-case letter.
Behind abbreviations that may stand last (Inc., al.), it does before a function word: with a capital these begin
sentences (the orthographic heuristic of Kiss and Strunk, "Unsupervised Multilingual Sentence Boundary Detection",
2006).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.text.languages import voices

LONGEST = 400
"""Characters above which a sentence is split at its line ends, or at spaces where they stand between sentences."""

END_MARKS = ".!?…؟۔։。！？｡।॥။។៕።།"
"""What sentences end with, in all scripts."""

_MARKS = r"(?:\[(?:\d{1,3}|[a-z]|note \d+)\])*"
"""Of footnotes, as Wikipedia sets them behind the full stop."""
_END = re.compile(
    rf"(?P<stop>[.!?\u2026\u061f\u06d4\u0589]+)[\"'\u201d\u2019\u00bb)\]]*{_MARKS}(?=\s+(?P<next>\S+))"
    # Full stops, exclamation and question marks that no space has to follow: of Chinese and Japanese, Hindi, Burmese,
    # Khmer, Ethiopic and Tibetan.
    r"|[\u3002\uff01\uff1f\uff61\u0964\u0965\u104b\u17d4\u17d5\u1362\u0f0d]+[\u300d\u300f\u201d\u2019\uff09]*"
    r"|\n[ \t]*\n"
    r"|\n[ \t]*[-=~^*#_]{3,}[ \t]*(?=\n|\Z)"  # heading underlines and rules
    r"|\n(?=[ \t]*(?:[-*•]|\d+[.)])\s)"
)
_OPENING = "\"'\u201c\u2018\u201e\u00ab([{\u00bf\u00a1\u2014\u2013-*_"
_SPACES_BETWEEN_SENTENCES = re.compile(r"(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\s+")

_BEFORE_A_NAME = frozenset(
    "e.g i.e cf vs viz fig figs eq eqs dr mr mrs ms prof st mt gen sen rep gov capt lt hon rev ca approx ed eds vol"
    " z.b d.h u.a s.o s.u bzw ggf evtl insb vgl hr fr str abt inkl exkl geb tel mio mrd tsd"
    " m mm mme mlle p.ex c.-à-d av bd sr sra srta dña ud uds avda p.ej sig dott ing avv bijv d.w.z o.a dhr mevr t.ex"
    " bl.a d.v.s f.eks np tzn tj ul m.in inż mgr tzv např bkz örn"
    " ул пр просп пл пер д кв г гг обл пос им т.е т.к т.н напр проф акад см рис табл тыс млн млрд руб коп вул буд"
    " м".split()
)
_BEFORE_A_NUMBER = frozenset(
    "no nos nr nrn num núm nº art arts abs ziff kap sec sect ch chap p pp pg pag pág págs s sp vers v nn rn lit max min"
    " п пп гл с стр ч т вып арт ст str č".split()
)
_MAY_BE_LAST = frozenset("inc ltd corp co bros jr plc gmbh llc al".split())
_ORDERED = frozenset(
    "januar jänner februar märz april mai juni juli august september oktober november dezember jahrhundert jahrhunderts"
    " quartal kapitel abschnitt klasse stock".split()
)
"""What German ordinals stand before, which end with a full stop; other languages write these in lower case."""
_ABBREVIATION = re.compile(r"(?<![\w.])(\w[\w.-]*)\.$")
_INITIAL = re.compile(r"[^\W\d]\.")
_SPACED_ABBREVIATION = re.compile(r"(?<![\w.])\w\. ?\w\.$")


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence, without surrounding white space; `text[start:end]` is the sentence."""
    begin = 0
    for match in _END.finditer(text):
        if match["stop"] and not _ends(text[begin : match.end("stop")], match["stop"], match["next"]):
            continue
        yield from _pieces(text, begin, match.start() if text[match.start()] == "\n" else match.end())
        begin = match.end()
    yield from _pieces(text, begin, len(text))


def _ends(sentence: str, stop: str, following: str) -> bool:
    """Whether a mark is the end of a sentence that is read up to it."""
    first = following.lstrip(_OPENING)[:1]
    if first.islower():
        return False
    if stop != ".":
        return True
    match = _ABBREVIATION.search(sentence[-24:])
    if match is None:
        return True
    word, name, then = match[1], match[1].casefold(), following.strip(".,;:").casefold()
    if word.isdigit():
        of_a_list = sentence.strip() == f"{word}."
        return not of_a_list and (len(word) > 2 or then not in _ORDERED)
    if name in _BEFORE_A_NAME or (name in _BEFORE_A_NUMBER and first.isdigit()):
        return False
    if len(word) == 1 and _INITIAL.match(following):
        return False
    if len(word) == 1 and word.isupper():
        return then in voices() and not _SPACED_ABBREVIATION.search(sentence[-24:])
    return name not in _MAY_BE_LAST or then in voices()


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    if end - begin > LONGEST:
        if (line := text.find("\n", begin + 1, end)) != -1:
            yield from _pieces(text, begin, line)
            yield from _pieces(text, line, end)
            return
        if space := _SPACES_BETWEEN_SENTENCES.search(text, begin + LONGEST // 2, end):
            yield from _pieces(text, begin, space.start())
            yield from _pieces(text, space.end(), end)
            return
    piece = text[begin:end]
    if stripped := piece.strip():
        start = begin + piece.index(stripped[0])
        yield start, start + len(stripped)
