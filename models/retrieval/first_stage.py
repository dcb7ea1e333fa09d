"""The first stage that fits the corpus: its weights are fitted, and judged, on the development queries.

Reciprocal ranks need no judgments, but where one search is much worse than the other they pull the better one down.
With judgments a weighted sum of the scores is better, and a few dozen queries are enough to fit it (Bruch, Gai and
Ingber, "An analysis of fusion functions for hybrid retrieval", TOIS 2023). docs/decisions/0022-first-stage.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.cascade.listwise import fit_weights
from models.contracts.rows import GIVEN
from models.corpus.splits import sample_by_hash
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run
from models.retrieval.candidates import build_candidates, query_vectors
from models.retrieval.embedding import encoder_version
from models.retrieval.fusion import FIRST_STAGE_FILE, FirstStage
from models.retrieval.retriever import open_retriever
from models.retrieval.steps import FIRST_STAGE
from models.store.durable_files import canonical_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.settings import IndexSettings, Settings
    from models.store.artifacts import Artifact, ArtifactStore
    from models.store.steps import Lookup

FEATURES = ("dense", "lexical", "lexical_log")
RECALL_DEPTHS = (20, 50, 100)
"""Candidates of a query behind which the recall is told."""
MIN_QUERIES = 20
"""Development queries with a relevant candidate below which nothing is chosen by them."""

_FOLDS = 5
_RECALL = "recall_at_{}"


@dataclass(frozen=True)
class ChosenFirstStage:
    """A first stage, and why it is this one.

    `figures` are the mean nDCG@10 of each method on the development queries, of the learned one on queries that it was
    not fitted on; `queries` is how many count. Without figures there were too few.
    """

    first_stage: FirstStage
    reason: str
    queries: int
    figures: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what serves, and what it was chosen by."""
        return {
            "first_stage": self.first_stage.to_dict(),
            "reason": self.reason,
            "queries": self.queries,
            MAIN_MEASURE: dict(self.figures),
        }


def make_first_stage(
    store: ArtifactStore,
    settings: Settings,
    passages: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    progress: Callable[[int, int], None] | None = None,
) -> Artifact:
    """The first stage that fits the development queries of the evaluation set."""
    inputs = (passages, evaluation_set, passage_embeddings, dense_index, lexical_index)
    outside = {"encoder": encoder_version(passage_embeddings)}
    previous = partial(FIRST_STAGE.previous, store, outside)
    build = partial(learn_first_stage, *inputs, settings.index, previous, progress)
    return FIRST_STAGE.get_or_create(store, settings, build, inputs=inputs, outside=outside)


def learn_first_stage(
    passages: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    dense_index: Artifact,
    lexical_index: Artifact,
    settings: IndexSettings,
    previous: Lookup,
    progress: Callable[[int, int], None] | None,
    folder: Path,
) -> dict[str, Any]:
    """Write first_stage.json; return the method, why, and the figures of all methods.

    The vectors of the queries are kept beside it, and taken over from the artifact before.
    """
    before = previous()
    queries, judgments = (evaluation_set.read_table(f"{name}.parquet") for name in ("queries", "judgments"))
    dev = queries.loc[queries["split"] == "dev"]
    retriever = open_retriever(passages, passage_embeddings, dense_index, lexical_index, settings)
    vectors, embedded = query_vectors(dev["text"].tolist(), retriever, [before.folder] if before else [], folder)
    pool = build_candidates(dev, retriever, 2 * settings.depth, progress, vectors, depth=settings.depth)
    of_dev = judgments.loc[judgments["query_id"].isin(dev["query_id"])]
    copied = "kind" in dev and bool((dev["kind"] != GIVEN).any())
    chosen = choose_first_stage(pool, of_dev, settings, copied=copied)
    (folder / FIRST_STAGE_FILE).write_bytes(canonical_json(chosen.to_dict()))
    recalls = recall_by_depth(pool, of_dev, chosen.first_stage)
    return {
        "method": chosen.first_stage.method,
        "reason": chosen.reason,
        "queries": chosen.queries,
        "queries_embedded": embedded,
        **{f"ndcg_at_10_{method}": value for method, value in chosen.figures.items()},
        **{f"weight_{name}": weight for name, weight in chosen.first_stage.weights.items()},
        **{_RECALL.format(depth): share for depth, share in recalls.items()},
    }


def recall_by_depth(pool: pd.DataFrame, judgments: pd.DataFrame, first_stage: FirstStage) -> dict[int, float]:
    """Share of the relevant documents of a query that are among its first candidates, the mean over all judged queries,
    by the number of candidates; empty where nothing is relevant. `pool` as of `choose_first_stage`."""
    relevant = judgments.loc[judgments["grade"] > 0, ["query_id", "document_id"]].drop_duplicates()
    if relevant.empty:
        return {}
    scores = pool["retriever_score"] if first_stage.method == "rrf" else _scores(first_stage, pool)
    ranked = _ranked(pool, scores)
    best = ranked.groupby(["query_id", "document_id"], as_index=False)["rank"].min()
    places = relevant.merge(best, on=["query_id", "document_id"], how="left")["rank"]
    return {
        depth: float((places <= depth).groupby(relevant["query_id"].to_numpy()).mean().mean())
        for depth in RECALL_DEPTHS
    }


def recalls_in(summary: Mapping[str, Any]) -> dict[int, float]:
    """What `recall_by_depth` gave, from the summary of the artifact."""
    stored = {depth: summary.get(_RECALL.format(depth)) for depth in RECALL_DEPTHS}
    return {depth: float(share) for depth, share in stored.items() if share is not None}


def choose_first_stage(
    pool: pd.DataFrame, judgments: pd.DataFrame, settings: IndexSettings, *, copied: bool = False
) -> ChosenFirstStage:
    """Weights fitted on the queries of `pool`, a fixed order that ranks them clearly better, or what the settings name.

    `pool` has all that both searches brought for these queries: a table of `contracts.Candidates`, `retriever_score`
    being that of reciprocal ranks. Weights are judged on queries that they were not fitted on (five folds of queries),
    then fitted on all. Another order takes their place where its nDCG@10 is higher by more than the standard error of
    the difference, as in the rule of one standard error (Breiman et al., 1984): weights can come close to either search
    alone, so that little is lost by them, and some dozen queries mistake one search for the better by luck. Queries
    that are `copied` from the passages, as pseudo-queries are, never choose one search: they flatter that by words.
    """
    rrf = FirstStage(rrf_k=settings.rrf_k)
    grades = judgments.loc[judgments["grade"] > 0, ["query_id", "document_id", "grade"]]
    table = pool.merge(grades, on=["query_id", "document_id"], how="left").fillna({"grade": 0})
    queries = sorted(table.loc[table["grade"] > 0, "query_id"].unique().tolist())
    if settings.fusion not in ("auto", "learned"):
        chosen = rrf if settings.fusion == "rrf" else FirstStage.alone(settings.fusion)
        return ChosenFirstStage(chosen, f"index.fusion is {settings.fusion}", len(queries), {})
    if len(queries) < MIN_QUERIES:
        reason = f"{len(queries)} development queries have a relevant candidate, {MIN_QUERIES} are needed to choose"
        return ChosenFirstStage(rrf, reason, len(queries), {})
    table = table[table["query_id"].isin(queries)].reset_index(drop=True)
    fixed = {"rrf": rrf, "dense": FirstStage.alone("dense"), "bm25": FirstStage.alone("bm25")}
    values = {
        "rrf": _ndcg(table, table["retriever_score"], judgments),
        "dense": _ndcg(table, _scores(fixed["dense"], table), judgments),
        "bm25": _ndcg(table, _scores(fixed["bm25"], table), judgments),
        "learned": _ndcg(table, _cross_fitted(table, queries), judgments),
    }
    figures = {method: float(of_queries.mean()) for method, of_queries in values.items()}
    allowed = ("rrf",) if copied else tuple(fixed)
    better = [method for method in allowed if _clearly_better(values[method], values["learned"])]
    if better and settings.fusion == "auto":
        method = max(better, key=lambda name: figures[name])
        reason = f"{MAIN_MEASURE} on the development queries is higher than with weights, by more than its error"
        return ChosenFirstStage(fixed[method], reason, len(queries), figures)
    reason = "weights fitted on the development queries" if settings.fusion == "auto" else "index.fusion is learned"
    return ChosenFirstStage(fit_first_stage(table), reason, len(queries), figures)


def _clearly_better(values: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether the mean over queries is higher by more than the standard error of the difference."""
    apart = values - others
    return float(apart.mean()) > float(apart.std(ddof=1)) / np.sqrt(len(apart))


def fit_first_stage(table: pd.DataFrame) -> FirstStage:
    """The weights that fit the candidates in `table` listwise; each query has some with a `grade` above 0."""
    groups = [rows for _, rows in table.groupby("query_id", sort=True)]
    inputs = [_inputs(rows) for rows in groups]
    fitted = fit_weights(FEATURES, inputs, [rows["grade"].to_numpy(float) for rows in groups])
    # What standardizing takes from all candidates of a query alike does not order them.
    raw = {name: weight / scale for name, weight, scale in zip(FEATURES, fitted.weights, fitted.scale, strict=True)}
    return FirstStage("learned", raw)


def _cross_fitted(table: pd.DataFrame, queries: Sequence[str]) -> pd.Series:
    """Scores of the candidates by weights that were fitted without their own query."""
    # By hash: in the order of their ids, neighbours are often of one document.
    shuffled = sample_by_hash(pd.DataFrame({"query_id": queries}), len(queries))["query_id"].tolist()
    fold_of = {query_id: place % _FOLDS for place, query_id in enumerate(shuffled)}
    folds = table["query_id"].map(fold_of)
    scores = pd.Series(0.0, index=table.index)
    for fold in sorted(set(fold_of.values())):
        held_out = folds == fold
        scores[held_out] = _scores(fit_first_stage(table[~held_out]), table[held_out])
    return scores


def _scores(first_stage: FirstStage, table: pd.DataFrame) -> pd.Series:
    """Scores by weights, which need no rankings."""
    inputs = _inputs(table)
    return pd.Series(first_stage.scores([], inputs["dense"], inputs["lexical"]), index=table.index)


def _inputs(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {"dense": table["dense_score"].to_numpy(float), "lexical": table["lexical_score"].to_numpy(float)}


def _ndcg(table: pd.DataFrame, scores: pd.Series, judgments: pd.DataFrame) -> NDArray[np.float64]:
    """Of each query of the table, in the order of their ids; documents are ranked by their best passage."""
    ranked = _ranked(table, scores)
    of_these = judgments[judgments["query_id"].isin(table["query_id"])]
    return evaluate_run(collapse_to_documents(ranked), of_these, [MAIN_MEASURE])["value"].to_numpy(dtype=float)


def _ranked(table: pd.DataFrame, scores: pd.Series) -> pd.DataFrame:
    """The candidates of each query by score, with their `rank` from 1."""
    ranked = table.assign(score=scores).sort_values(["query_id", "score", "passage_id"], ascending=[True, False, True])
    return ranked.assign(rank=ranked.groupby("query_id").cumcount() + 1)
