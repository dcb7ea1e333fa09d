"""Extractive answers: the sentences of the best passages that answer the query, quoted with their places.

Sentences are chosen by maximal marginal relevance (Carbonell & Goldstein, 1998) over relevance to the query. Nothing is
written that no passage says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from models.contracts.messages import Citation, GivenPassage
from models.settings import GeneratorSettings
from models.text.sentences import split_sentences
from models.text.stop_words import QUESTION_WORDS
from models.text.tokenize import Tokenizer
from models.text.words import words

NO_ANSWER = "No passage answers this question."

_SENTENCE_WEIGHT = 0.6
_MMR_LAMBDA = 0.7
_SAME = 0.8
_SHARE_OF_BEST = 0.5
_LIKELY = 0.5
_MIN_WORDS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer's text with marks `[1]`, and the citation that each mark points to, in order."""

    text: str
    citations: list[Citation]


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: GivenPassage
    passage_rank: int
    start: int
    end: int
    terms: frozenset[str]

    @property
    def quote(self) -> str:
        return self.passage.text[self.start : self.end]


ScoreSentences = Callable[[str, Sequence[str]], Sequence[float]]
"""(query, sentences) -> one relevance from 0 to 1 per sentence."""


def extractive_answer(
    query: str,
    passages: Sequence[GivenPassage],
    settings: GeneratorSettings,
    score_sentences: ScoreSentences | None = None,
) -> Answer:
    """Answer `query` from the best of `passages`, which come best first.

    A sentence counts when it shares a term with the query, when `score_sentences` finds it more likely relevant than
    not, or when its passage is. Without such a sentence the answer is `NO_ANSWER` with no citations.
    """
    tokenizer = Tokenizer.of([query, *(passage.text for passage in passages[: settings.passages])])
    terms = content_terms(query, tokenizer)
    sentences = list(_sentences(passages[: settings.passages], tokenizer))
    if not sentences:
        return Answer(NO_ANSWER, [])
    overlap = [_cosine(terms, sentence.terms) for sentence in sentences]
    learned = _learned(query, sentences, score_sentences)
    relevance = {
        position: _SENTENCE_WEIGHT
        * (overlap[position] if learned is None else (overlap[position] + learned[position]) / 2)
        + (1 - _SENTENCE_WEIGHT) * sentence.passage.score
        for position, sentence in enumerate(sentences)
        if overlap[position] > 0
        or (learned is not None and learned[position] >= _LIKELY)
        or sentence.passage.score >= _LIKELY
    }
    chosen = _select(sentences, relevance, settings.max_sentences)
    return _compose([sentences[position] for position in chosen])


def content_terms(text: str, tokenizer: Tokenizer) -> frozenset[str]:
    """Stemmed content terms, in all languages of the tokenizer; all terms when every one is a stop word."""
    return frozenset(chain.from_iterable(tokenizer.query(text, QUESTION_WORDS)))


def _sentences(passages: Sequence[GivenPassage], tokenizer: Tokenizer) -> Iterator[_Sentence]:
    seen: set[str] = set()
    for rank, passage in enumerate(passages):
        for start, end in split_sentences(passage.text):
            quote = passage.text[start:end]
            key = " ".join(quote.split()).casefold()
            if key in seen or not _is_prose(quote):
                continue
            seen.add(key)
            yield _Sentence(passage, rank, start, end, content_terms(quote, tokenizer))


def _is_prose(quote: str) -> bool:
    if quote.startswith((">>>", "...")):
        return False
    visible = [character for character in quote if not character.isspace()]
    return len(words(quote)) >= _MIN_WORDS and sum(map(str.isalpha, visible)) >= len(visible) / 2


def _learned(query: str, sentences: Sequence[_Sentence], score: ScoreSentences | None) -> list[float] | None:
    if score is None:
        return None
    scores = [float(value) for value in score(query, [sentence.quote for sentence in sentences])]
    if len(scores) != len(sentences) or not all(math.isfinite(value) for value in scores):
        raise ValueError(f"{len(sentences)} sentences need as many finite scores, got {len(scores)}")
    return [min(1.0, max(0.0, value)) for value in scores]


def _select(sentences: Sequence[_Sentence], relevance: dict[int, float], limit: int) -> list[int]:
    chosen: list[int] = []
    floor = _SHARE_OF_BEST * max(relevance.values(), default=0.0)
    open_ = {position for position, value in relevance.items() if value >= floor}
    while open_ and len(chosen) < limit:
        similarity = {
            position: max((_cosine(sentences[position].terms, sentences[other].terms) for other in chosen), default=0.0)
            for position in open_
        }
        open_ = {position for position in open_ if similarity[position] <= _SAME}
        if not open_:
            break
        best = min(
            open_,
            key=lambda position: (
                (1 - _MMR_LAMBDA) * similarity[position] - _MMR_LAMBDA * relevance[position],
                position,
            ),
        )
        chosen.append(best)
        open_.discard(best)
    return chosen


def _compose(chosen: Sequence[_Sentence]) -> Answer:
    if not chosen:
        return Answer(NO_ANSWER, [])
    # Best passage first, and within a passage in reading order.
    ordered = sorted(chosen, key=lambda sentence: (sentence.passage_rank, sentence.start))
    text = " ".join(f"{' '.join(sentence.quote.split())} [{number}]" for number, sentence in enumerate(ordered, 1))
    return Answer(text, [_cite(sentence) for sentence in ordered])


def _cite(sentence: _Sentence) -> Citation:
    passage = sentence.passage
    return Citation(
        passage_id=passage.passage_id,
        document_id=passage.document_id,
        title=passage.title,
        quote=sentence.quote,
        start=passage.start + sentence.start,
        end=passage.start + sentence.end,
    )


def _cosine(left: frozenset[str], right: frozenset[str]) -> float:
    shared = len(left & right)
    return shared / math.sqrt(len(left) * len(right)) if shared else 0.0
