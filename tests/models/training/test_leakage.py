"""What may not train: by id, by text, by words, by meaning; and planted leaks in a real corpus."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bench.leakage import Split, embed, measure, read_split
from bench.rewording import REWORDINGS
from models.contracts.tables import ExcludedQueries, check_table
from models.corpus.splits import EvaluationTables
from models.errors import ArtifactError
from models.retrieval.candidates import query_hash
from models.retrieval.encoder import Encoder
from models.settings import EncoderSettings, TrainingSettings
from models.training.leakage import leaks, training_queries, vectors_of

DATA = Path(os.environ.get("RERANKOPS_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")

EVALUATED = pd.DataFrame(
    {"query_id": ["e1", "e2", "e3"], "text": ["What is nDCG?", "How does a pump seal wear?", "Why do cats purr"]}
)
AXES = np.eye(8, dtype=np.float32)


def queries(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["query_id", "text"]).assign(split="train").astype("str")


def test_each_reason_is_named_with_the_evaluation_query() -> None:
    train = queries(
        ("t4", "purring of house pets"),
        ("e1", "something else"),
        ("t2", "what is  NDCG"),
        ("t3", "pump seals: how do they wear"),
        ("t5", "how does a pump work"),
    )
    vectors = np.stack([AXES[2], AXES[3], AXES[4], AXES[5], AXES[6]])
    result = leaks(train, EVALUATED, vectors, AXES[:3], 0.75, 0.9)
    check_table(result, ExcludedQueries, "excluded")
    assert result[["query_id", "reason", "evaluation_query_id"]].to_numpy().tolist() == [
        ["e1", "same_id", "e1"],
        ["t2", "same_text", "e1"],
        ["t3", "same_words", "e2"],
        ["t4", "same_meaning", "e3"],
    ]
    assert result["overlap"].tolist() == [0, 1, 1, 0]
    assert result["cosine"].tolist() == [0, 0, 0, 1]
    nothing = leaks(train.tail(1), EVALUATED, vectors[4:], AXES[:3], 0.75, 0.9)
    check_table(nothing, ExcludedQueries, "excluded")
    assert nothing.empty


def test_training_queries_are_a_sample_without_what_is_evaluated() -> None:
    table = pd.concat(
        [
            queries(*((f"t{n}", f"question {n} about thing{n}") for n in range(20))),
            queries(("leak", "a cat: why does it purr?"), ("e2", "How does a pump seal wear?")),
            EVALUATED.assign(split="test").iloc[[0, 2]],
        ],
        ignore_index=True,
    )
    texts = table["text"].tolist()
    vectors = dict(zip(map(query_hash, texts), np.eye(len(texts), dtype=np.float32), strict=True))
    kept, excluded = training_queries(table, EVALUATED, vectors, TrainingSettings(max_queries=100))
    assert set(kept["query_id"]) == {f"t{n}" for n in range(20)}
    assert excluded["query_id"].tolist() == ["leak"], "e2 is evaluated, though the corpus says train"
    few, left_out = training_queries(table, EVALUATED, vectors, TrainingSettings(max_queries=5))
    assert len(few) + len(left_out) == 5
    with pytest.raises(ArtifactError, match="no vector in index/candidates"):
        training_queries(table, EVALUATED, {}, TrainingSettings())


def test_only_unknown_texts_are_embedded() -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return AXES[: len(texts)]

    known = {query_hash("a"): AXES[7]}
    assert vectors_of(["b", "a", "b", "c"], known, encode).argmax(axis=1).tolist() == [0, 7, 0, 1]
    assert asked == ["b", "c"]


@pytest.mark.heavy
@pytest.mark.skipif(not (DATA / "scifact").is_dir(), reason="needs the SciFact folder below RERANKOPS_DATA")
def test_planted_rewordings_are_excluded_and_named() -> None:
    whole = read_split(DATA / "scifact")
    queries = whole.evaluated.queries.iloc[::6]
    split = Split(whole.train.iloc[::2], EvaluationTables(queries, whole.evaluated.judgments), whole.relevant)
    encoder = Encoder.load(EncoderSettings().model, EncoderSettings().max_tokens)
    result = measure(split, *embed(split, encoder), TrainingSettings())
    assert set(result["kinds"]) == set(REWORDINGS)
    for kind, counts in result["kinds"].items():
        assert counts["caught"] >= (0.9 if kind == "all of these" else 0.98) * counts["planted"], kind
        assert counts["named"] >= 0.9 * counts["planted"], kind
    assert result["clean"]["sharing_a_document"] >= 0.9 * result["clean"]["excluded"] > 0
    assert result["kept"] > 0.9 * result["training_queries"]
