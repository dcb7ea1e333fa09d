"""The mixture of several corpora: its order, and whose queries may not train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.retrieval.candidates import query_hash
from models.settings import Settings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from models.training.mixture import HeldOut, MixedCorpus, balanced_order, make_mixture
from tests.deployments import write_artifact

QUESTIONS = {
    "pumps": [
        ("1", "how to oil a pump", "train"),
        ("2", "why does the pump leak", "train"),
        ("3", "pump speed", "test"),
    ],
    "ovens": [("1", "how to heat an oven", "train"), ("2", "PUMP: speed?", "train"), ("4", "oven doors", "dev")],
}
"""The ids repeat, as they do between corpora; the second question of `ovens` repeats a test query of `pumps`."""


def shares(sizes: dict[str, int], exponent: float, first: int) -> dict[str, int]:
    order = balanced_order(sizes, exponent)[:first]
    owner = np.repeat([*sizes], [*sizes.values()])
    return {name: int((owner[order] == name).sum()) for name in sizes}


def test_every_beginning_has_the_tempered_shares() -> None:
    sizes = {"large": 900, "small": 100}
    for first in (40, 80, 200):
        assert shares(sizes, 0.5, first) == {"large": 0.75 * first, "small": 0.25 * first}
        assert shares(sizes, 1.0, first) == {"large": 0.9 * first, "small": 0.1 * first}
        assert shares(sizes, 0.0, first) == {"large": first / 2, "small": first / 2}


def test_where_a_corpus_runs_out_the_others_go_on_and_nothing_is_repeated() -> None:
    sizes = {"large": 900, "small": 100, "none": 0}
    assert shares(sizes, 0.0, 600) == {"large": 500, "small": 100, "none": 0}
    order = balanced_order(sizes, 0.5)
    assert sorted(order.tolist()) == list(range(1000))
    of_large = order[order < 900]
    assert of_large.tolist() == list(range(900)), "the first lists of all queries stay before the second ones"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


def corpus(store: ArtifactStore, name: str, lists: int = 1) -> MixedCorpus:
    """A corpus with `lists` lists of two for each training query; the vector of each text is its own direction."""
    texts = [text for questions in QUESTIONS.values() for _, text, _ in questions]
    queries = pd.DataFrame(QUESTIONS[name], columns=["query_id", "text", "split"]).astype("str")
    trained = queries[queries["split"] == "train"]
    rows = [
        (query_id, text, f"p{number}.{label}", f"{name} passage {number}", float(label), kind, 0.5, 1.0)
        for number in range(lists)
        for query_id, text in zip(trained["query_id"], trained["text"], strict=True)
        for label, kind in ((1, "positive"), (0, "hard"))
    ]
    columns = ["query_id", "query", "passage_id", "passage", "label", "kind", "dense_score", "lexical_score"]

    def vectors(folder: Path) -> dict[str, int]:
        np.save(folder / "query_hashes.npy", np.array([query_hash(text) for text in texts], dtype="S64"))
        np.save(folder / "query_vectors.npy", np.eye(len(texts), dtype=np.float32))
        write_table(queries, folder / "of.parquet")
        return {}

    def artifact(asset: str, table: str, rows: pd.DataFrame) -> Artifact:
        return write_artifact(store, asset, {table: rows})

    return MixedCorpus(
        name,
        artifact("corpus/queries", "queries.parquet", queries),
        artifact("corpus/evaluation_set", "queries.parquet", queries[queries["split"] == "test"]),
        artifact("index/passage_embeddings", "none.parquet", queries),
        store.get_or_create("index/candidates", code_version="1", inputs={"of": name}, settings={}, build=vectors),
        artifact("training/training_examples", "training_examples.parquet", pd.DataFrame(rows, columns=columns)),
    )


def test_ids_are_of_their_corpus_and_no_query_trains_that_another_corpus_is_evaluated_on(store: ArtifactStore) -> None:
    mixed = make_mixture(store, Settings(), [corpus(store, "pumps"), corpus(store, "ovens")])
    examples = mixed.read_table("training_examples.parquet")
    assert set(examples["query_id"]) == {"pumps/1", "pumps/2", "ovens/1"}
    assert examples.groupby("query_id")["kind"].agg(list).map(lambda kinds: kinds == ["positive", "hard"]).all()
    excluded = mixed.read_table("excluded_queries.parquet")
    assert excluded[["query_id", "reason", "evaluation_query_id"]].to_numpy().tolist() == [
        ["ovens/2", "same_words", "pumps/3"]
    ]
    assert mixed.summary["corpora"]["ovens"]["queries_repeating_other_corpora"] == 1
    assert mixed.read_table("logged_lists.parquet").empty
    assert mixed.read_table("development_lists.parquet").empty


def test_a_corpus_that_does_not_train_keeps_its_questions_to_itself(store: ArtifactStore) -> None:
    pumps, ovens = corpus(store, "pumps"), corpus(store, "ovens")
    alone = make_mixture(store, Settings(), [ovens])
    assert set(alone.read_table("training_examples.parquet")["query_id"]) == {"ovens/1", "ovens/2"}
    held_out = HeldOut(pumps.name, pumps.queries, pumps.evaluation_set)
    # Without candidates of the other corpus, its queries are known from those of this one.
    beside = make_mixture(store, Settings(), [ovens], [held_out])
    assert set(beside.read_table("training_examples.parquet")["query_id"]) == {"ovens/1"}


def test_it_holds_what_both_trainings_read_and_no_more(store: ArtifactStore) -> None:
    settings = Settings(tiers=TiersSettings(models=["compact", "large"]))
    few = settings.pretraining.model_copy(update={"pairs": 4, "compact_pairs": 3})
    mixed = make_mixture(
        store,
        settings.model_copy(update={"pretraining": few}),
        [corpus(store, "pumps", lists=5), corpus(store, "ovens")],
    )
    examples = mixed.read_table("training_examples.parquet")
    assert len(examples) == 8, "7 pairs in whole lists of 2"
    assert mixed.summary["lists"] == 4
    assert {name.partition("/")[0] for name in examples["query_id"]} == {"pumps", "ovens"}
