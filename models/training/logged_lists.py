"""Logged candidates as an artifact: what callers asked and which passages were ranked, as lists without judgments for
distillation, without what repeats a query that is or may be evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from models.corpus.passage_table import PassageTable
from models.retrieval.candidates import stored_query_vectors
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import digest_json
from models.store.tables import write_table
from models.text.passage_text import passage_text
from models.training.leakage import LEAK_REASONS, held_out_queries, leaks, query_encoder, vectors_of
from models.training.steps import LOGGED_LISTS

_MIN_PASSAGES = 2


@dataclass(frozen=True)
class LoggedList:
    """A query and the passages that its decision ranked, in the order of the first stage."""

    decision_id: str
    query: str
    passage_ids: tuple[str, ...]


def make_logged_lists(
    store: ArtifactStore,
    settings: Settings,
    logged: Sequence[LoggedList],
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
) -> Artifact:
    """The lists that the compact model is distilled on beside the training examples.

    They are an artifact of their own, so that a training that is tried again learns from what the first try read,
    whatever was logged since.
    """
    inputs = (passages, queries, evaluation_set, candidates, passage_embeddings)
    return LOGGED_LISTS.get_or_create(
        store,
        settings,
        partial(collect, logged, *inputs, settings.training),
        inputs=inputs,
        outside={"decisions": logged_digest(logged)},
    )


def collect(
    logged: Sequence[LoggedList],
    passages: Artifact,
    queries: Artifact,
    evaluation_set: Artifact,
    candidates: Artifact,
    passage_embeddings: Artifact,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write logged_lists.parquet and excluded_queries.parquet; return how many queries were offered, left out for each
    reason, and used."""
    offered = pd.DataFrame(
        {"query_id": [item.decision_id for item in logged], "text": [item.query for item in logged]}, dtype="str"
    )
    held_out = held_out_queries(queries, evaluation_set) if logged else offered
    texts = [*offered["text"], *held_out["text"]]
    vectors = vectors_of(texts, stored_query_vectors(candidates.folder), query_encoder(passage_embeddings))
    excluded = leaks(
        offered,
        held_out,
        vectors[: len(offered)],
        vectors[len(offered) :],
        settings.leak_overlap,
        settings.leak_cosine,
    )
    repeating = set(excluded["query_id"])
    clean = [item for item in logged if item.decision_id not in repeating]
    table = logged_table(clean, PassageTable(passages.path("passages.parquet")), settings.negatives + 1)
    write_table(table, folder / "logged_lists.parquet")
    write_table(excluded, folder / "excluded_queries.parquet")
    used = table["query_id"].nunique()
    reasons = excluded["reason"].value_counts()
    return {
        "dagster/row_count": len(table),
        "queries_offered": len(logged),
        "queries_excluded": len(excluded),
        **{f"queries_excluded_{reason}": int(reasons.get(reason, 0)) for reason in LEAK_REASONS},
        "queries_of_few_passages": len(clean) - used,
        "queries_used": used,
    }


def logged_digest(lists: Sequence[LoggedList]) -> str:
    """SHA-256 (hex) of the lists: it stands for them where the texts of the passages are given."""
    return digest_json([[logged.decision_id, logged.query, logged.passage_ids] for logged in lists])


def logged_table(lists: Sequence[LoggedList], passages: PassageTable, length: int) -> pd.DataFrame:
    """The lists with texts, rows of `contracts.LoggedLists`, each list with its first `length` passages.

    Passages that the corpus does not have (any more), as a caller's own texts, are left out, and lists of fewer than
    two. `query_id` is the id of the decision.
    """
    texts = passages.read({name for logged in lists for name in logged.passage_ids}, ["title", "text"])
    text_of = dict(zip(texts["passage_id"], map(passage_text, texts["title"], texts["text"]), strict=True))
    rows = []
    for logged in lists:
        ranked = [name for name in logged.passage_ids if name in text_of][:length]
        if len(ranked) >= _MIN_PASSAGES:
            rows += [(logged.decision_id, logged.query, name, text_of[name]) for name in ranked]
    return pd.DataFrame(rows, columns=["query_id", "query", "passage_id", "passage"]).astype("str")
