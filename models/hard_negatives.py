# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""Training examples: each training query's positives with hard negatives mined from the hybrid candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.encoder import passage_text
from models.settings import TrainingSettings
from models.splits import sample_by_hash


@dataclass(frozen=True)
class Mined:
    """Training examples and what became of the queries."""

    examples: pd.DataFrame
    queries_offered: int
    queries_used: int
    positives_missed: int
    false_negatives_filtered: int


def mine_examples(
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    candidates: pd.DataFrame,
    passages: pd.DataFrame,
    settings: TrainingSettings,
) -> Mined:
    """Lists of one positive and `settings.negatives` negatives for each training query and positive document.

    `candidates` are the hybrid candidates of the queries (contracts.Candidates). The positive is the best
    ranked passage of a
    judged document; a query whose positives retrieval missed gives no list, as none would occur in serving.
    Negatives are drawn from the
    first `negative_depth` ranks, half of them from the top third. A candidate that the encoder scores above (1
    + margin) x the positive is
    taken for an unjudged positive and left out (cf. the positive-aware mining of NV-Retriever, Moreira et al. 2024).
    """
    train = sample_by_hash(queries[queries["split"] == "train"], settings.max_queries)
    by_query = dict(iter(candidates.groupby("query_id", sort=False)))
    grades: dict[str, dict[str, int]] = {}
    for query_id, document_id, grade in judgments[["query_id", "document_id", "grade"]].itertuples(index=False):
        grades.setdefault(query_id, {})[document_id] = int(grade)
    texts = dict(zip(passages["passage_id"], map(passage_text, passages["title"], passages["text"]), strict=True))
    hashes = dict(zip(passages["passage_id"], passages["content_hash"], strict=True))
    top_grade = max((grade for judged in grades.values() for grade in judged.values()), default=1)

    rng = np.random.default_rng(settings.seed)
    rows: list[tuple[object, ...]] = []
    used = missed = filtered = 0
    for query_id, query in train[["query_id", "text"]].itertuples(index=False):
        found = by_query.get(query_id)
        judged = grades.get(query_id, {})
        positives = {document: grade for document, grade in judged.items() if grade > 0}
        if found is None or not positives:
            missed += len(positives)
            continue
        found = found.sort_values("rank")
        best = found[found["document_id"].isin(list(positives))].drop_duplicates("document_id")
        missed += len(positives) - len(best)
        positive_hashes = {
            hashes[passage_id] for passage_id in found.loc[found["document_id"].isin(list(positives)), "passage_id"]
        }
        pool = found[~found["document_id"].isin(list(positives)) & (found["rank"] <= settings.negative_depth)]
        pool = pool[~pool["passage_id"].map(hashes).isin(positive_hashes)]
        for positive in best.head(2).itertuples(index=False):
            kept = pool[pool["dense_score"] <= (1 + settings.false_negative_margin) * positive.dense_score]
            filtered += len(pool) - len(kept)
            chosen = _draw(kept, settings.negatives, rng)
            if chosen.empty:
                continue
            used += 1
            label = positives[positive.document_id] / top_grade
            for kind, value, row in [
                ("positive", label, positive),
                *(("hard", 0.0, r) for r in chosen.itertuples(index=False)),
            ]:
                rows.append(
                    (
                        f"{query_id}",
                        query,
                        row.passage_id,
                        texts[row.passage_id],
                        value,
                        kind,
                        row.dense_score,
                        row.lexical_score,
                    )
                )
    columns = ["query_id", "query", "passage_id", "passage", "label", "kind", "dense_score", "lexical_score"]
    examples = pd.DataFrame(rows, columns=columns).astype(
        {"label": float, "dense_score": float, "lexical_score": float}
    )
    return Mined(examples, len(train), used, missed, filtered)


def _draw(pool: pd.DataFrame, count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `count` rows, half of them (rounded up) from the top third of the ranks."""
    if len(pool) <= count:
        return pool
    third = max(count, len(pool) // 3)
    hard = rng.choice(third, size=(count + 1) // 2, replace=False)
    rest = np.setdiff1d(np.arange(len(pool)), hard)
    return pool.iloc[np.concatenate([hard, rng.choice(rest, size=count - len(hard), replace=False)])]
