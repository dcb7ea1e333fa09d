"""The nouns of retrieval that every layer shares, as frozen dataclasses.

Tables of them are checked by the pandera schemas of `models.contracts.tables`; messages between services by the
pydantic models there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SPLITS = ("train", "dev", "test")
GIVEN = "given"
COPIED_KINDS, WRITTEN = ("title", "heading", "sentence", "cloze", "keywords"), "written"
PSEUDO_KINDS = (*COPIED_KINDS, WRITTEN)
"""Where a query comes from: the source, a part of the text (models/corpus/pseudo_queries.py), or a language model that
read it (models/corpus/written_queries.py)."""

Rule = Literal[
    "malformed",
    "encoding",
    "too_long",
    "columns",
    "missing",
    "wrong_type",
    "out_of_range",
    "control_character",
    "bad_id",
    "duplicate_id",
    "unknown_reference",
    "leakage",
    "unreadable",
]
"""What a refused row broke; `models.contracts.tables.RULES` says each in words."""


class Place(NamedTuple):
    """Where a row stands in its source, as in `corpus.jsonl:17`, and the digest of what stands there."""

    position: str
    digest: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document as a source yields it, before it is split into passages."""

    document_id: str
    title: str
    text: str
    source: str
    access: tuple[str, ...] = ()
    updated_at: str | None = None
    """ISO 8601 with offset, where the source knows it."""
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, and a row of the passages table: `text` is `document.text[start:end]`."""

    passage_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    source: str
    access: tuple[str, ...] = ()
    content_hash: str = ""
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that the first stage found for a query; the same object goes from retrieval to the answer.

    `row` is its row in the passages table and the indexes, `rank` its place in the fused list, from 1.
    `dense_score` is a cosine, `lexical_score` BM25; both are given whichever search found it.
    """

    row: int
    passage_id: str
    document_id: str
    rank: int
    retriever_score: float
    dense_score: float
    lexical_score: float
    retriever: Literal["dense", "lexical", "hybrid"]


@dataclass(frozen=True, slots=True)
class Query:
    """A question with its split (`train`, `dev`, `test`), or an empty split for the splitter to decide.

    `group` is what must not straddle splits (an article, a module); empty means the judged documents decide.
    """

    query_id: str
    text: str
    split: str = ""
    group: str = ""
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Judgment:
    """A relevance judgment (qrel): `grade` 0 is judged not relevant, higher is more relevant."""

    query_id: str
    document_id: str
    grade: int
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """An input row that broke its contract: kept with the rule, the reason and its place, never dropped silently.

    `row` is the row as text, cut to what a quarantine keeps; `digest` is that of all of it, so that a later reading can
    tell whether the same row still stands there.
    """

    table: str
    reason: str
    position: str
    row: str = ""
    rule: Rule = "malformed"
    digest: str = field(default="", compare=False)
