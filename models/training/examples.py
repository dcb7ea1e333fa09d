"""The training examples as an artifact: mined lists, what was left out for leakage, and the development lists."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.corpus.integrity import require_judgments
from models.corpus.passage_table import PassageTable
from models.retrieval.candidates import query_hash, stored_query_vectors
from models.settings import Settings, TrainingSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from models.training.hard_negatives import development_lists, mine_examples, open_teacher
from models.training.leakage import held_out_queries, query_encoder, training_queries, vectors_of
from models.training.steps import TRAINING_EXAMPLES
from models.weights import weights_digest


def make_training_examples(
    store: ArtifactStore,
    settings: Settings,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
) -> Artifact:
    """The lists that the cross-encoders are trained on."""
    inputs = (passages, queries, judgments, candidates, evaluation_set, passage_embeddings)
    teacher = settings.training.false_negative_teacher
    return TRAINING_EXAMPLES.get_or_create(
        store,
        settings,
        partial(mine, *inputs, settings.training),
        inputs=inputs,
        outside={"teacher": weights_digest(teacher)} if teacher else None,
    )


def mine(
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    candidates: Artifact,
    evaluation_set: Artifact,
    passage_embeddings: Artifact,
    settings: TrainingSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write training_examples.parquet, excluded_queries.parquet and development_lists.parquet; return their counts.

    Raises `SourceError` where no judgment is positive.
    """
    judged, evaluated = judgments.read_table("judgments.parquet"), evaluation_set.read_table("queries.parquet")
    require_judgments(judged)
    held_out, stored = held_out_queries(queries, evaluation_set), stored_query_vectors(candidates.folder)
    asked = held_out["text"].tolist()
    embedded = vectors_of(asked, stored, query_encoder(passage_embeddings))
    vectors = {**stored, **dict(zip(map(query_hash, asked), embedded, strict=True))}
    kept, excluded = training_queries(queries.read_table("queries.parquet"), held_out, vectors, settings)
    texts = PassageTable(passages.path("passages.parquet"))
    mined = mine_examples(
        kept, judged, candidates.read_table("training_candidates.parquet"), texts, settings, open_teacher(settings)
    )
    write_table(mined.examples, folder / "training_examples.parquet")
    write_table(excluded, folder / "excluded_queries.parquet")
    development = development_lists(evaluated, judged, candidates.read_table("candidates.parquet"), texts)
    write_table(development, folder / "development_lists.parquet")
    return {"dagster/row_count": len(mined.examples), "queries_excluded": len(excluded), **mined.counts}
