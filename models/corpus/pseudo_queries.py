"""Pseudo-queries: questions made from the text itself, for a corpus that nobody has judged.

A document's title, one of its headings or its first sentence stands for what is asked for (headings and titles:
MacAvaney et al., "Content-based weak supervision for ad-hoc re-ranking", SIGIR 2019; first sentences: Husain et al.,
"CodeSearchNet challenge", 2019), or any other sentence does, the inverse cloze task (Lee, Chang and Toutanova, "Latent
retrieval for weakly supervised open domain question answering", ACL 2019). Keywords are the words of a document with
the highest tf-idf (Salton and Buckley, "Term-weighting approaches in automatic text retrieval", IP&M 1988), in the
order in which they stand there: what many type into a search box. A language model writes others
(`models.corpus.written_queries`). Such a query is marked by its `kind`. In training the text of what was copied whole
is taken out of the passages, or the model would learn to find repeated words; an evaluation on them says how well known
passages are found again, which is easier than real questions are.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from models.contracts.rows import COPIED_KINDS, GIVEN, PSEUDO_KINDS, WRITTEN, Judgment, Query
from models.corpus.passage_table import PassageTable
from models.corpus.splits import normalize_query, place_queries
from models.text.sentences import END_MARKS, LONGEST, split_sentences
from models.text.words import is_unspaced, words

WriteQueries = Callable[[PassageTable, pd.DataFrame, pd.DataFrame], list[tuple[Query, Judgment]]]
"""Queries for passages, given the queries and judgments that there are."""

PREFIX = "pseudo/"
"""Of the ids of pseudo-queries."""

_WORDS = range(4, 33)
_HEADING_WORDS = range(2, 13)
_KEPT_SHARE = 0.1
"""Share of the passages in which the query's text stays (Lee et al., 2019): it is a hint in real questions too."""

_KEYWORDS, _LETTERS_OF_KEYWORD, _COMMON_KEYWORD = 3, 4, 0.1
"""Words of a keyword query, letters of each at least, and share of the documents above which a word is no keyword."""

_HEADING_END = re.compile(rf"[:;,：、，{END_MARKS}]$")
_LETTERS = re.compile(r"[^\W\d_]")


def add_pseudo_queries(
    folder: Path,
    mode: Literal["auto", "on"],
    documents: int,
    dev_share: float,
    test_share: float,
    kinds: Collection[str] = COPIED_KINDS,
    write: WriteQueries | None = None,
) -> dict[str, int]:
    """Add pseudo-queries to queries.parquet and judgments.parquet in `folder`, made from its passages.parquet.

    They take the splits in which no given query has a relevant document, so that evaluation stays with real questions
    where there are any: without judgments all three, beside judged test queries those for training and development.
    `auto` makes them where nothing is judged for training, `on` always, for training too. They are made from the
    `documents` documents with the smallest hash of their id, at most one of each of `kinds`, beside those that `write`
    returns; texts that several documents have, or that a given query has, are left out. Returns how many there are of
    each kind.
    """
    from models.store.tables import write_table

    queries, judgments = pd.read_parquet(folder / "queries.parquet"), pd.read_parquet(folder / "judgments.parquet")
    answered = judgments.loc[judgments["grade"] > 0, "query_id"]
    judged = set(queries.loc[queries["query_id"].isin(answered), "split"])
    if "train" in judged and mode == "auto":
        return {}
    passages = PassageTable(folder / "passages.parquet")
    pairs = [pair for pair in make_queries(passages, documents) if kind_of(pair[0].query_id) in kinds]
    if write is not None:
        pairs += write(passages, queries, judgments)
    seen = Counter(normalize_query(query.text) for query, _ in pairs)
    seen.update(normalize_query(text) for text in queries["text"])
    kept = [(query, judgment) for query, judgment in pairs if seen[normalize_query(query.text)] == 1]
    new = pd.DataFrame([(query.query_id, query.text, "", "") for query, _ in kept], columns=_PLACED)
    relevant = pd.DataFrame([(j.query_id, j.document_id, j.grade) for _, j in kept], columns=list(judgments.columns))
    relevant = relevant.astype(judgments.dtypes.to_dict())
    new = place_queries(new.astype("str"), relevant, dev_share, test_share)
    new["split"] = new["split"].mask(new["split"].isin(judged), "train")
    of_kind = new["query_id"].map(kind_of)
    table = pd.concat([queries.assign(kind=GIVEN), new[["query_id", "text", "split"]].assign(kind=of_kind)])
    table = table.astype("str").sort_values("query_id", ignore_index=True)
    write_table(table, folder / "queries.parquet")
    both = pd.concat([judgments, relevant]).sort_values(["query_id", "document_id"], ignore_index=True)
    write_table(both, folder / "judgments.parquet")
    counts = table["kind"].value_counts()
    splits = table["split"].value_counts()
    return {
        "queries": len(table),
        **{f"queries_{split}": int(splits.get(split, 0)) for split in ("train", "dev", "test")},
        "judgments": len(both),
        **{f"pseudo_queries_{kind}": int(counts.get(kind, 0)) for kind in PSEUDO_KINDS},
    }


def kind_of(query_id: str) -> str:
    """The kind of a pseudo-query, by its id."""
    return query_id.removeprefix(PREFIX).partition("/")[0]


_PLACED = ["query_id", "text", "split", "group"]


def make_queries(passages: PassageTable, documents: int) -> Iterator[tuple[Query, Judgment]]:
    """The pseudo-queries of the `documents` documents with the smallest hash of their id, each with its judgment."""
    names = (name for _, rows in passages.stream(["document_id"]) for name in rows["document_id"])
    chosen = set(heapq.nsmallest(documents, (name for name, _ in groupby(names)), key=_hash))
    documents_with = Counter(
        word for _, _, pieces in _documents(passages, chosen) for word in {*map(str.casefold, _terms(" ".join(pieces)))}
    )
    for document_id, title, pieces in _documents(passages, chosen):
        for kind, text in _texts(document_id, title, pieces):
            yield pseudo_query(kind, document_id, text)
        if keywords := _keywords(" ".join(pieces), documents_with, len(chosen)):
            yield pseudo_query("keywords", document_id, keywords)


def pseudo_query(kind: str, document_id: str, text: str) -> tuple[Query, Judgment]:
    """A query of a kind for a document, with its judgment; its id says both."""
    name = f"{PREFIX}{kind}/{_hash(f'{document_id} {text}').hex()[:24]}"
    return Query(name, text), Judgment(name, document_id, 1)


def _documents(passages: PassageTable, chosen: Collection[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(id, title, texts of the passages) of the chosen documents."""
    rows = (
        (str(row.document_id), str(row.title), str(row.text))
        for _, table in passages.stream(["document_id", "title", "text"])
        for row in table[table["document_id"].isin(chosen)].itertuples(index=False)
    )
    for document_id, pieces in groupby(rows, key=lambda row: row[0]):
        listed = list(pieces)
        yield document_id, listed[0][1], [text for _, _, text in listed]


def hide_answers(examples: pd.DataFrame, kinds: pd.Series) -> pd.DataFrame:
    """Training examples without the text of their pseudo-queries in the passages.

    `kinds` has the kind of each query by id. Of a `title` query, no passage of the list has its title; of the others,
    the positive passage mostly lacks the query's text, where that stands in it.
    """
    of_row = examples["query_id"].map(kinds)
    if not of_row.isin(PSEUDO_KINDS).any():
        return examples
    passages = [
        passage if kind in (GIVEN, WRITTEN) else _hidden(str(kind), str(name), query, passage, label)
        for kind, name, query, passage, label in zip(
            of_row, examples["query_id"], examples["query"], examples["passage"], examples["label"], strict=True
        )
    ]
    return examples.assign(passage=pd.Series(passages, index=examples.index, dtype="str"))


def _hidden(kind: str, query_id: str, query: str, passage: str, label: float) -> str:
    if kind == "title":
        _, newline, text = passage.partition("\n")
        return text.strip() or passage if newline else passage
    if label == 0 or _share(query_id) < _KEPT_SHARE:
        return passage
    pattern = r"\s+".join(map(re.escape, query.split()))
    return re.sub(pattern, "", passage, count=1).strip() or passage


def _texts(document_id: str, title: str, pieces: list[str]) -> Iterator[tuple[str, str]]:
    """(kind, text) of the queries that a document gives."""
    title = " ".join(title.split())
    taken = {normalize_query(title)}
    if _words(title) in _HEADING_WORDS:
        yield "title", title
    sentences = [sentence for piece in pieces for sentence in _sentences(piece)]
    headings = [heading for piece in pieces for heading in _headings(piece)]
    first = sentences[:1]
    others = sentences[1:]
    for kind, candidates in (("heading", headings), ("sentence", first), ("cloze", others)):
        usable = [text for text in candidates if normalize_query(text) not in taken]
        if usable:
            text = min(usable, key=lambda text: _hash(f"{document_id} {text}"))
            taken.add(normalize_query(text))
            yield kind, text


def _terms(text: str) -> list[str]:
    """The words of a text that may be keywords: written with spaces, of letters alone, of four at least."""
    long = (word for word in words(text) if len(word) >= _LETTERS_OF_KEYWORD and word.isalpha())
    return [word for word in long if not is_unspaced(word)]


def _keywords(text: str, documents_with: Mapping[str, int], documents: int) -> str:
    """The words of a document with the highest tf-idf among `documents`, `documents_with` each of which have a word;
    empty where it has too few that are not common."""
    terms = _terms(text)
    counts = Counter(map(str.casefold, terms))
    rare = [word for word in counts if documents_with[word] <= max(1, _COMMON_KEYWORD * documents)]
    weights = {word: counts[word] * math.log((1 + documents) / documents_with[word]) for word in rare}
    best = set(heapq.nlargest(_KEYWORDS, rare, key=lambda word: (weights[word], word)))
    if len(best) < _KEYWORDS:
        return ""
    forms: dict[str, str] = {}
    for term in terms:
        forms.setdefault(term.casefold(), term)
    return " ".join(form for word, form in forms.items() if word in best)


def _sentences(text: str) -> Iterator[str]:
    for start, end in split_sentences(text):
        sentence = " ".join(text[start:end].split())
        is_text = len(sentence) <= LONGEST and sentence[-1:] in END_MARKS
        if is_text and _words(sentence) in _WORDS and _mostly_letters(sentence):
            yield sentence


def _headings(text: str) -> Iterator[str]:
    """Short lines without an end mark that text follows."""
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines[:-1]):
        heading = " ".join(line.lstrip("#=- ").split())
        is_short = _words(heading) in _HEADING_WORDS and len(heading) <= LONGEST
        alone = number == 0 or not lines[number - 1]
        if is_short and alone and not _HEADING_END.search(heading) and _mostly_letters(heading):
            yield heading


def _words(text: str) -> int:
    """Words of a text; where words are written without spaces, two characters for each."""
    every = words(text)
    return len(every) - sum(map(is_unspaced, every)) // 2


def _mostly_letters(text: str) -> bool:
    return 2 * len(_LETTERS.findall(text)) > len(text)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _share(text: str) -> float:
    return float(np.frombuffer(_hash(text)[:8], dtype=np.uint64)[0]) / 2**64
