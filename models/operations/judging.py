"""A person judges a few queries, chosen so that they say most about all: does the reranker help on this corpus?

Two rankings are compared: that of the first stage (lean), which needs no model of ours, and that of all tiers. Where
they agree, no judgment can tell them apart, so queries are drawn with a probability that grows with their disagreement,
and each counts in the estimate as many times as it stands for (Horvitz and Thompson, 1952; for rankings: Schnabel et
al., "Unbiased comparative evaluation of ranking functions", ICTIR 2016). What is judged of a query is the best of both
rankings together (depth-k pooling, as in TREC), shown in an order that tells neither.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.contracts.rows import RejectedRow
from models.corpus.sources.lines import read_json_lines, read_text_lines
from models.errors import ContractError, SourceError
from models.measures.metrics import MAIN_MEASURE, evaluate_run
from models.measures.significance import bootstrap_interval
from models.retrieval.candidates import query_hash
from models.store.durable_files import write_atomically

if TYPE_CHECKING:
    from models.serving.loaded_bundle import LoadedBundle

DEPTH = 10
"""Documents of each ranking that are judged, as many as nDCG@10 looks at."""

MAX_GRADE = 2
QUERIES_FILE, JUDGMENTS_FILE = "queries.jsonl", "judgments.jsonl"

_EVEN_SHARE = 0.1
"""Share of the draws that goes evenly to all queries on which the rankings differ: none is left without a chance."""

_NO_LIMIT_MS = 1e9
_MOST_QUERIES, _MOST_CHARACTERS = 100_000, 10_000


@dataclass(frozen=True, slots=True)
class RankedQuery:
    """A query with the best documents of both rankings.

    Attributes:
        query_id: Stands for the text.
        text: The query.
        first_stage: Ids of at most `DEPTH` documents without a model, best first.
        tiered: The same by all tiers.
        shown: (title, text) of the best passage of each of these documents, in an order that tells nothing.
        disagreement: Absolute difference of the documents' discounted gains between the rankings, each document
            weighted by how relevant the tiers believe it to be; 0 where the rankings are the same.
    """

    query_id: str
    text: str
    first_stage: tuple[str, ...]
    tiered: tuple[str, ...]
    shown: Mapping[str, tuple[str, str]]
    disagreement: float


@dataclass(frozen=True, slots=True)
class Draw:
    """A query to be judged, and the probability [0, 1] with which it was drawn."""

    query: RankedQuery
    probability: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the judged queries say of all `queries`: mean nDCG@10 of all tiers minus that of the first stage.

    `low` and `high` bound it at the confidence asked for; None with fewer than two judged queries. `differing` counts
    the queries on which the rankings differ: on the others the difference is 0, judged or not.
    """

    queries: int
    differing: int
    judged: int
    difference: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def read_queries(path: Path) -> list[str]:
    """The queries of a text file, one on each line, or of a JSONL file, under `text`; each once, in their order.

    Raises `SourceError` naming the line that is no query.
    """
    texts: dict[str, None] = {}
    read = read_json_lines if path.suffix == ".jsonl" else read_text_lines
    for item in read(path, "queries"):
        text = "" if isinstance(item, RejectedRow) else item[1]
        text = text.get("text") if isinstance(text, dict) else text
        text = text.strip() if isinstance(text, str) else ""
        if not text or len(text) > _MOST_CHARACTERS:
            position = item.position if isinstance(item, RejectedRow) else item[0]
            reason = f"is no query of 1 to {_MOST_CHARACTERS:,} characters"
            raise SourceError(
                f"{path.parent / position} {reason}", 'A line of JSONL is as in {"text": "how do I ..."}.'
            )
        texts[text] = None
    if not 0 < len(texts) <= _MOST_QUERIES:
        raise SourceError(f"{path} has {len(texts):,} queries", f"From 1 to {_MOST_QUERIES:,} can be drawn from.")
    return list(texts)


def rank_queries(
    bundle: LoadedBundle, texts: Sequence[str], candidates: int, progress: Callable[[int, int], None] | None = None
) -> list[RankedQuery]:
    """Both rankings of each query as the bundle serves them without a deadline, of all passages, whoever may read
    them."""
    ranked = []
    for number, text in enumerate(texts, 1):
        retrieved = bundle.retrieve(text, candidates, None)
        lean, tiered = (bundle.rank_candidates(text, retrieved, budget) for budget in (0.0, _NO_LIMIT_MS))
        first, best = (
            _documents([retrieved[item.index].document_id for item in ranking.items]) for ranking in (lean, tiered)
        )
        belief: dict[str, float] = {}
        shown: dict[str, tuple[str, str]] = {}
        for item in tiered.items:
            candidate = retrieved[item.index]
            if candidate.document_id in {*first, *best} and candidate.document_id not in belief:
                passage = bundle.passage(candidate)
                belief[candidate.document_id] = item.score
                shown[candidate.document_id] = (passage.title, passage.text)
        query_id = query_name(text)
        blind = sorted(shown, key=lambda document: hashlib.sha256(f"{query_id} {document}".encode()).digest())
        ranked.append(
            RankedQuery(
                query_id,
                text,
                first,
                best,
                {document: shown[document] for document in blind},
                disagreement(first, best, belief),
            )
        )
        if progress is not None:
            progress(number, len(texts))
    return ranked


def disagreement(first: Sequence[str], second: Sequence[str], belief: Mapping[str, float]) -> float:
    """How far two rankings are apart, as `RankedQuery.disagreement` says; `belief` is a probability by document."""
    gains = [{document: 1 / math.log2(rank + 1) for rank, document in enumerate(docs, 1)} for docs in (first, second)]
    total = sum(belief.values())
    if not total:
        return 0.0
    return sum(abs(gains[0].get(name, 0.0) - gains[1].get(name, 0.0)) * share for name, share in belief.items()) / total


def draw(queries: Sequence[RankedQuery], count: int, *, seed: int = 0, evenly: bool = False) -> list[Draw]:
    """At most `count` of the queries on which the rankings differ, in random order, the same for the same seed.

    Drawn without repeats with probabilities proportional to the disagreement (systematic sampling in random order;
    Madow, 1949), or to nothing, if `evenly`: then of all queries, those on which the rankings agree too.
    """
    generator = np.random.default_rng(seed)
    pool = list(queries) if evenly else [query for query in queries if query.disagreement > 0]
    if not pool:
        return []
    sizes = np.array([1.0 if evenly else query.disagreement for query in pool])
    sizes = (1 - _EVEN_SHARE) * sizes / sizes.mean() + _EVEN_SHARE
    probabilities = _inclusion(sizes, min(count, len(pool)))
    order = generator.permutation(len(pool))
    ends = np.cumsum(probabilities[order])
    points = np.arange(round(float(ends[-1]))) + generator.uniform()
    rows = order[np.minimum(np.searchsorted(ends, points, side="right"), len(pool) - 1)]
    return [Draw(pool[row], float(probabilities[row])) for row in generator.permutation(np.unique(rows))]


def estimate(
    queries: Sequence[RankedQuery],
    drawn: Sequence[Draw],
    differences: Mapping[str, float],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Estimate:
    """What the judged ones of the drawn queries say of all.

    Args:
        queries: All queries, of which `drawn` were drawn.
        drawn: In the order in which they are judged: where a person stopped, the first of them stand for all.
        differences: Of the queries that are judged, by id, as `differences_of` gives them.
        resamples: Of the bootstrap (BCa).
        confidence: Level of the interval.
    """
    differing = sum(query.disagreement > 0 for query in queries)
    judged = [item for item in drawn if item.query.query_id in differences]
    if len(judged) < 2:
        return Estimate(len(queries), differing, len(judged), None, None, None)
    share = len(judged) / len(drawn)
    # Their mean is the Horvitz-Thompson estimate. Resampling, as if drawn with repeats, makes the interval too wide.
    values = [
        len(judged) * differences[item.query.query_id] / (len(queries) * item.probability * share) for item in judged
    ]
    low, high = bootstrap_interval(values, confidence=confidence, resamples=resamples)
    return Estimate(len(queries), differing, len(judged), float(np.mean(values)), low, high)


def differences_of(queries: Sequence[RankedQuery], grades: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """nDCG@10 of all tiers minus that of the first stage for each query that is judged, by id.

    `grades` has the grade of each judged document by query id; documents that it does not list have grade 0. Where
    nothing is relevant, the difference is 0.
    """
    judged = [query for query in queries if query.query_id in grades]
    rows = [(query.query_id, name, grade) for query in judged for name, grade in grades[query.query_id].items()]
    judgments = pd.DataFrame(rows, columns=["query_id", "document_id", "grade"])
    differences = {query.query_id: 0.0 for query in judged}
    if not (judgments["grade"] > 0).any():
        return differences
    for sign, rankings in ((1, [query.tiered for query in judged]), (-1, [query.first_stage for query in judged])):
        ranked = [
            (query.query_id, document, float(-rank))
            for query, ranking in zip(judged, rankings, strict=True)
            for rank, document in enumerate(ranking)
        ]
        run = pd.DataFrame(ranked, columns=["query_id", "document_id", "score"])
        values = evaluate_run(run, judgments, [MAIN_MEASURE])
        for query_id, value in zip(values["query_id"], values["value"], strict=True):
            differences[query_id] += sign * value
    return differences


def query_name(text: str) -> str:
    """Id of a judged query."""
    return f"judged/{query_hash(text)[:24]}"


def read_grades(folder: Path) -> dict[str, dict[str, int]]:
    """The grades that are in `folder`, by query and document; of a query that nothing is relevant to, none."""
    grades: dict[str, dict[str, int]] = {row["query_id"]: {} for row in _rows(folder / QUERIES_FILE)}
    for row in _rows(folder / JUDGMENTS_FILE):
        grades.setdefault(row["query_id"], {})[row["document_id"]] = int(row["grade"])
    return grades


def keep(folder: Path, query: RankedQuery, grades: Mapping[str, int]) -> None:
    """Add a judged query to the tables in `folder`, which a source of files reads: test queries, and what is relevant.

    The judgments are written first: a process that is killed between the two leaves judgments of a query that is asked
    about again, and then has them replaced.
    """
    if unknown := set(grades) - set(query.shown):
        raise ContractError(f"{query.query_id}: {min(unknown)} was not shown", "Grade the documents that were.")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"query_id": query.query_id, "document_id": document, "grade": grades.get(document, 0)}
        for document in query.shown
    ]
    others = [row for row in _rows(folder / JUDGMENTS_FILE) if row["query_id"] != query.query_id]
    _write(folder / JUDGMENTS_FILE, [*others, *rows])
    others = [row for row in _rows(folder / QUERIES_FILE) if row["query_id"] != query.query_id]
    _write(folder / QUERIES_FILE, [*others, {"query_id": query.query_id, "text": query.text, "split": "test"}])


def _documents(ids: Sequence[str]) -> tuple[str, ...]:
    """The best documents, each at the rank of its best passage."""
    return tuple(dict.fromkeys(ids))[:DEPTH]


def _inclusion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Probabilities [n] that sum to `count`, proportional to the sizes but for those that are drawn for certain."""
    certain = np.zeros(len(sizes), dtype=bool)
    while True:
        left = count - int(certain.sum())
        shares = left * sizes / sizes[~certain].sum() if not certain.all() else np.ones(len(sizes))
        probabilities = np.where(certain, 1.0, shares)
        over = ~certain & (probabilities >= 1)
        if not over.any():
            return probabilities
        certain |= over


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for item in read_json_lines(path, path.stem):
        if isinstance(item, RejectedRow):
            raise SourceError(f"{path.parent / item.position} is not JSON", "Mend the line, or name another folder.")
        rows.append(item[1])
    return rows


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomically(path, "".join(lines).encode())
