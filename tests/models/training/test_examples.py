"""Training examples as an artifact: what does not train."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from models.settings import Settings, TrainingSettings
from models.store.artifacts import ArtifactStore
from models.store.tables import write_table
from models.training.examples import make_training_examples
from tests.checks import corpus_tables
from tests.deployments import write_artifact
from tests.query_encoding import embed_passages, store_vectors

QUERIES = pd.DataFrame(
    [
        ("q0", "how does topic 0 work", "test"),
        ("q1", "what do cats eat", "dev"),
        ("q2", "when does the river rise", "test"),
        ("q3", "the river: when does it RISE", "train"),
        ("q4", "who wrote the book", "train"),
    ],
    columns=["query_id", "text", "split"],
).astype("str")


@pytest.mark.heavy
def test_no_query_trains_that_repeats_one_held_out_whether_evaluated_or_not(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")
    (tmp_path / "embedded").mkdir()
    embedded = embed_passages(tmp_path / "embedded", QUERIES["text"])
    store_vectors(store, embedded, QUERIES.loc[QUERIES["query_id"] != "q2", "text"].tolist())
    candidates = store.require("index/candidates")
    rows = [(f"q{query}", f"d{document}#0", f"d{document}") for query in range(5) for document in range(5)]
    found = pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id"]).astype("str")
    found = found.assign(rank=[1, 2, 3, 4, 5] * 5, retriever_score=0.1, dense_score=0.5, lexical_score=1.0)

    def build(folder: Path) -> dict[str, int]:
        for file in ("query_hashes.npy", "query_vectors.npy"):
            (folder / file).write_bytes(candidates.path(file).read_bytes())
        write_table(found, folder / "candidates.parquet")
        write_table(found.assign(dense_rank=found["rank"], lexical_rank=0), folder / "training_candidates.parquet")
        return {}

    artifact = make_training_examples(
        store,
        Settings(training=TrainingSettings(draws=1)),
        write_artifact(store, "corpus/passages", {"passages.parquet": corpus_tables.passages(5)}),
        write_artifact(store, "corpus/queries", {"queries.parquet": QUERIES}),
        write_artifact(store, "corpus/judgments", {"judgments.parquet": corpus_tables.judgments(5)}),
        store.get_or_create("index/candidates", code_version="2", inputs={}, settings={}, build=build),
        write_artifact(store, "corpus/evaluation_set", {"queries.parquet": QUERIES.head(2)}),
        store.require("index/passage_embeddings"),
    )
    excluded = artifact.read_table("excluded_queries.parquet")
    assert excluded[["query_id", "reason", "evaluation_query_id"]].to_numpy().tolist() == [["q3", "same_words", "q2"]]
    assert set(artifact.read_table("training_examples.parquet")["query_id"]) == {"q4"}
    assert artifact.summary["queries_excluded"] == 1
