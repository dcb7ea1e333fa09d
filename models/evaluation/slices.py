"""Where a reranker helps and where it hurts: its gain on parts of the evaluated queries.

A mean hides what happens to kinds of queries. Parts are made by what is known before anything is ranked: the length of
the query, how many of its words stand in the judged text, its rarest word, the source and the grade of what is
relevant, and how much is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.measures.metrics import MAIN_MEASURE
from models.measures.significance import (
    bootstrap_interval,
    holm,
    paired_randomization_test,
    smallest_detectable_difference,
)
from models.settings import EvaluationSettings
from models.text.passage_text import passage_text

MIN_QUERIES = 5
"""Queries of a slice, at least: fewer say nothing."""

_BANDS = 3
_SOURCES = 6
_EXAMPLES = 3
_BLOCK = 4096
_SEED = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """`candidate` minus `baseline` in nDCG@10 on the queries of one value of one property.

    `p_value` is of the paired randomization test, `p_corrected` the same for all slices together (Holm). `examples` are
    the queries that lost most, or won least.
    """

    by: str
    value: str
    queries: int
    baseline: float
    candidate: float
    difference: float
    low: float
    high: float
    p_value: float
    p_corrected: float
    detectable: float
    hurt: int
    examples: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def query_facts(queries: pd.DataFrame, judgments: pd.DataFrame, passages: pd.DataFrame) -> pd.DataFrame:
    """What is known of each query of `queries` that has a relevant document, by `query_id`.

    Columns: `words`, `overlap` (share of the query's index terms that stand in the relevant document with most of them,
    0 to 1), `rarest` (passages with the query's rarest term), `source` and `grade` of the best judged document, and
    `relevant` (documents).
    """
    from models.text.tokenize import Tokenizer
    from models.text.words import count_words

    positive = judgments[(judgments["grade"] > 0) & judgments["query_id"].isin(queries["query_id"])]
    texts = dict(zip(queries["query_id"], queries["text"], strict=True))
    tokenizer = Tokenizer.of(list(texts.values()))
    terms = {query_id: set(tokenizer.query(text)) for query_id, text in texts.items()}
    relevant = set(positive["document_id"])
    of_document: dict[str, set[tuple[str, ...]]] = {}
    frequency: Counter[tuple[str, ...]] = Counter()
    words_of: dict[str, list[tuple[str, ...]]] = {}
    for word in set().union(*terms.values()):
        for term in word:
            words_of.setdefault(term, []).append(word)
    rows = zip(passages["document_id"], passages["title"], passages["text"], strict=True)
    for block in _blocks(rows, _BLOCK):
        tokenized = tokenizer.passages([passage_text(title, text) for _, title, text in block])
        for (document_id, *_), words in zip(block, tokenized, strict=True):
            asked = {word for term in words_of.keys() & set(words) for word in words_of[term]}
            frequency.update(asked)
            if document_id in relevant:
                of_document.setdefault(document_id, set()).update(asked)
    sources = dict(zip(passages["document_id"], passages["source"], strict=True))
    facts = []
    for query_id, judged in positive.groupby("query_id", sort=True):
        asked = terms[query_id]
        best = judged.sort_values(["grade", "document_id"], ascending=[False, True]).iloc[0]
        shares = [len(asked & of_document.get(name, set())) / max(len(asked), 1) for name in judged["document_id"]]
        facts.append(
            {
                "query_id": query_id,
                "words": count_words(texts[query_id]),
                "overlap": max(shares),
                "rarest": min((frequency[term] for term in asked), default=0),
                "source": sources.get(best["document_id"], ""),
                "grade": int(best["grade"]),
                "relevant": len(judged),
            }
        )
    return pd.DataFrame(facts).set_index("query_id")


def slice_gains(
    per_query: pd.DataFrame,
    facts: pd.DataFrame,
    texts: Mapping[str, str],
    candidate: str,
    baseline: str,
    settings: EvaluationSettings,
) -> list[Slice]:
    """The gain of `candidate` over `baseline` on every part of the queries with at least `MIN_QUERIES` of them.

    `per_query` is the table of an `EvaluationReport`, `facts` that of `query_facts`, `texts` by query id.
    """
    main = per_query[per_query["measure"] == MAIN_MEASURE]
    values = main.pivot(index="query_id", columns="system", values="value")[[candidate, baseline]]
    parts = [(by, value, ids) for by, value, ids in _parts(facts) if len(ids) >= MIN_QUERIES]
    slices = [_slice(by, value, values.loc[ids], candidate, baseline, texts, settings) for by, value, ids in parts]
    corrected = holm([part["p_value"] for part in slices]) if slices else []
    return [Slice(**part, p_corrected=float(p)) for part, p in zip(slices, corrected, strict=True)]


def worst(slices: Iterable[Slice], count: int = 5) -> list[Slice]:
    """The slices with the lowest gain, lowest first."""
    return sorted(slices, key=lambda part: (part.difference, part.candidate))[:count]


def _slice(
    by: str,
    value: str,
    values: pd.DataFrame,
    candidate: str,
    baseline: str,
    texts: Mapping[str, str],
    settings: EvaluationSettings,
) -> dict[str, Any]:
    a, b = values[candidate].to_numpy(dtype=float), values[baseline].to_numpy(dtype=float)
    low, high = bootstrap_interval(a - b, settings.confidence, settings.resamples, _SEED)
    order = np.lexsort((values.index.to_numpy(), a, a - b))[:_EXAMPLES]
    return {
        "by": by,
        "value": value,
        "queries": len(values),
        "baseline": float(b.mean()),
        "candidate": float(a.mean()),
        "difference": float((a - b).mean()),
        "low": low,
        "high": high,
        "p_value": paired_randomization_test(a, b, settings.resamples, _SEED),
        "detectable": smallest_detectable_difference(a - b),
        "hurt": int((a - b < -1e-9).sum()),
        "examples": [
            {
                "query_id": str(values.index[row]),
                "text": texts[str(values.index[row])],
                "baseline": float(b[row]),
                "candidate": float(a[row]),
            }
            for row in order.tolist()
        ],
    }


def _parts(facts: pd.DataFrame) -> Iterable[tuple[str, str, list[str]]]:
    yield from _bands("query length", facts["words"], lambda low, high: f"{_range(low, high)} words")
    yield from _bands(
        "words in the judged text",
        facts["overlap"],
        lambda low, high: f"{_range(round(100 * low), round(100 * high))} %",
    )
    yield from _bands("rarest word", facts["rarest"], lambda low, high: f"in {_range(low, high)} passages")
    yield from _bands("relevant documents", facts["relevant"], lambda low, high: _range(low, high))
    for grade, rows in facts.groupby("grade"):
        yield "judged grade", f"{grade}", rows.index.tolist()
    common = facts["source"].value_counts().head(_SOURCES).index
    sources = facts["source"].where(facts["source"].isin(common), "other sources")
    if sources.nunique() > 1:
        for source, rows in facts.groupby(sources):
            yield "source", str(source) or "no source", rows.index.tolist()


def _bands(by: str, values: pd.Series, name: Any) -> Iterable[tuple[str, str, list[str]]]:
    """Parts of about equal size, equal values in one; none where there is but one part."""
    cuts = np.unique(np.quantile(values, np.arange(1, _BANDS) / _BANDS, method="inverted_cdf"))
    places = np.searchsorted(cuts, values.to_numpy(), side="left")
    if len(set(places.tolist())) < 2:
        return
    for band in range(len(cuts) + 1):
        inside = values[places == band]
        if len(inside):
            yield by, name(inside.min(), inside.max()), inside.index.tolist()


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _blocks(rows: Iterable[Any], size: int) -> Iterable[list[Any]]:
    block: list[Any] = []
    for row in rows:
        block.append(row)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
