from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from models.contracts.tables import Candidates, TrainingCandidates, check_table
from models.corpus.splits import sample_by_hash
from models.retrieval.candidates import build_all_candidates, build_candidates, first_stage_rankings, time_first_stages
from models.retrieval.dense_index import DenseIndex, build
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.retriever import HybridRetriever
from models.settings import IndexSettings

TEXTS = [
    "The oven bakes bread at high heat.",
    "Bread dough rises overnight in the fridge.",
    "A bicycle has two wheels and a chain.",
    "Oil the bicycle chain after rain.",
    "Thunder follows lightning.",
    "Rain falls from clouds.",
]
TOPICS = ["bread", "bicycle", "chain", "thunder", "rain", "oven"]


class TopicEncoder:
    """Embeds a text by the topics that it names."""

    dimensions = len(TOPICS)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.array([[0.1 + (topic in text.lower()) for topic in TOPICS] for text in texts], dtype=np.float32)
        vectors = vectors.reshape(len(texts), self.dimensions)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def retriever() -> HybridRetriever:
    ids = [f"doc{row // 2}#{row % 2}" for row in range(len(TEXTS))]
    passages = pa.table(
        {
            "passage_id": ids,
            "document_id": [f"doc{row // 2}" for row in range(len(TEXTS))],
            "access": [["hr"] if row == 1 else [] for row in range(len(TEXTS))],
        }
    )
    dense = DenseIndex(build(TopicEncoder().encode_queries(TEXTS)), ids)
    return HybridRetriever(TopicEncoder(), dense, LexicalIndex.build(TEXTS, ids), passages, IndexSettings(depth=4))


def queries_of(*texts: str, split: str = "test") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query_id": [f"{split}-{row}" for row in range(len(texts))],
            "text": list(texts),
            "split": [split] * len(texts),
        }
    )


def test_candidates_keep_their_contract_and_the_retrievers_order(retriever: HybridRetriever) -> None:
    queries = queries_of("bread in the oven", "bicycle chain", "unheard xyzzy")
    table = build_candidates(queries, retriever, 3)
    check_table(table, Candidates, "candidates")
    for query in queries.itertuples():
        rows = table[table["query_id"] == query.query_id]
        retrieved = retriever.retrieve(str(query.text), 3, None)
        assert rows["rank"].tolist() == [1, 2, 3]
        for column in ("passage_id", "document_id", "retriever_score", "dense_score", "lexical_score"):
            assert rows[column].tolist() == [getattr(item, column) for item in retrieved]
    assert table["query_id"].drop_duplicates().tolist() == queries["query_id"].tolist()


def test_offline_candidates_include_passages_that_need_a_label(retriever: HybridRetriever) -> None:
    assert "doc0#1" in build_candidates(queries_of("bread dough"), retriever, 2)["passage_id"].tolist()


def test_no_queries_give_an_empty_table_under_the_contract(retriever: HybridRetriever) -> None:
    table = build_candidates(queries_of(), retriever, 3)
    assert len(table) == 0
    check_table(table, Candidates, "candidates")
    assert all(len(ranking) == 0 for ranking in first_stage_rankings(queries_of(), retriever, 3).values())


def test_progress_is_reported(retriever: HybridRetriever) -> None:
    seen: list[tuple[int, int]] = []
    build_candidates(queries_of(*["bread"] * 70), retriever, 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 70), (70, 70)]


def test_each_first_stage_is_ranked_by_its_own_score(retriever: HybridRetriever) -> None:
    queries = queries_of("bicycle chain", "rain", "unheard xyzzy")
    rankings = first_stage_rankings(queries, retriever, 3)
    assert set(rankings) == {"bm25", "dense", "hybrid", "lean"}
    texts = dict(zip(retriever.passage_ids, TEXTS, strict=True))
    lexical = LexicalIndex.build(TEXTS, retriever.passage_ids)
    for name, table in rankings.items():
        assert list(table.columns) == ["query_id", "passage_id", "document_id", "rank", "score"]
        for _, rows in table.groupby("query_id"):
            assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
            assert len(rows) <= 3
            assert rows["score"].is_monotonic_decreasing, name
        assert [name.partition("#")[0] for name in table["passage_id"]] == table["document_id"].tolist()
    for row in rankings["bm25"].itertuples():
        query = queries.set_index("query_id").loc[str(row.query_id), "text"]
        index = retriever.passage_ids.index(str(row.passage_id))
        assert row.score == pytest.approx(float(lexical.scores(str(query))[index]), abs=1e-6)
    assert "test-2" not in rankings["bm25"]["query_id"].tolist()
    dense = rankings["dense"].iloc[0]
    vectors = TopicEncoder().encode_queries(["bicycle chain", texts[dense["passage_id"]]])
    assert dense["score"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)


def test_the_hybrid_ranking_is_that_of_the_candidates(retriever: HybridRetriever) -> None:
    queries = queries_of("bread in the oven", "rain on the bicycle")
    hybrid = first_stage_rankings(queries, retriever, 4)["hybrid"]
    candidates = build_candidates(queries, retriever, 4)
    pd.testing.assert_frame_equal(
        hybrid.rename(columns={"score": "retriever_score"}),
        candidates[[*hybrid.columns.drop("score").tolist(), "retriever_score"]],
    )


def test_each_first_stage_is_timed_by_itself(retriever: HybridRetriever, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class SlowEncoder(TopicEncoder):
        def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
            nonlocal now
            now += 2.0 * len(texts)
            return super().encode_queries(texts)

    class SlowIndex(LexicalIndex):
        def scores(self, query: str) -> NDArray[np.float32]:
            nonlocal now
            now += 0.5
            return super().scores(query)

    ids = list(retriever.passage_ids)
    passages = pa.table({"passage_id": ids, "document_id": retriever.document_ids, "access": [["hr"]] * len(ids)})
    slow = HybridRetriever(
        SlowEncoder(),
        DenseIndex(build(TopicEncoder().encode_queries(TEXTS)), ids),
        SlowIndex.build(TEXTS, ids),
        passages,
        IndexSettings(depth=4),
    )
    monkeypatch.setattr("models.retrieval.candidates.time.perf_counter", lambda: now)
    many = queries_of(*["bread"] * 70)
    measured = {"encoding": 2.0, "bm25": 0.5, "dense": 2.0, "hybrid": 2.5}
    assert time_first_stages(many, slow, 3) == measured
    assert time_first_stages(queries_of(), slow, 3) == dict.fromkeys(measured, 0.0)
    known = TopicEncoder().encode_queries(many["text"].tolist()), 3.0
    begun = now
    assert time_first_stages(many, slow, 3, known) == {"encoding": 3.0, "bm25": 0.5, "dense": 3.0, "hybrid": 3.5}
    assert now - begun == 64 * (0.5 + 0.5), "nothing is embedded"


def test_each_stage_alone_finds_what_it_finds_in_the_hybrid(retriever: HybridRetriever) -> None:
    queries = queries_of(*["bicycle chain", "rain", "unheard xyzzy"] * 30)
    rankings = first_stage_rankings(queries, retriever, 3)
    texts = queries["text"].tolist()
    for name, (rows, scores) in (
        ("dense", retriever.search_dense(retriever.encode(texts), 3)),
        ("bm25", retriever.search_lexical(texts, 3)),
    ):
        result = rows >= 0
        assert [retriever.passage_ids[row] for row in rows[result]] == rankings[name]["passage_id"].tolist()
        np.testing.assert_array_equal(scores[result], rankings[name]["score"].to_numpy())
    assert retriever.search_dense(retriever.encode([]), 3)[0].shape == (0, 3)


def test_the_tables_of_a_run_hold_the_training_sample_and_the_evaluation_queries(
    retriever: HybridRetriever, tmp_path: Path
) -> None:
    train = queries_of("bread", "chain", "thunder", "rain", "oven", split="train")
    dev, test = queries_of("bicycle", split="dev"), queries_of("bread dough", "lightning", split="test")
    evaluation = pd.concat([dev, test.iloc[:1]], ignore_index=True)
    facts = build_all_candidates(
        pd.concat([train, dev, test], ignore_index=True),
        evaluation,
        retriever,
        tmp_path,
        candidates=3,
        depth=4,
        max_train_queries=2,
    )
    table = pd.read_parquet(tmp_path / "candidates.parquet")
    check_table(table, Candidates, "candidates.parquet")
    assert set(table["query_id"]) == {"dev-0", "test-0"}
    assert table["query_id"].is_monotonic_increasing
    stages = pd.read_parquet(tmp_path / "first_stage.parquet")
    assert set(stages["query_id"]) == {"dev-0", "test-0"}
    assert set(stages["system"]) == {"bm25", "dense", "hybrid", "lean"}
    assert facts["dagster/row_count"] == len(table)
    assert facts["queries"] == 4
    sampled = sample_by_hash(train, 2)
    deep = pd.read_parquet(tmp_path / "training_candidates.parquet")
    check_table(deep, TrainingCandidates, "training_candidates.parquet")
    assert facts["training_candidates"] == len(deep)
    shared = deep.drop(columns=["dense_rank", "lexical_rank"])
    pd.testing.assert_frame_equal(shared, build_candidates(sampled, retriever, 4))
    stages = first_stage_rankings(sampled, retriever, 4)
    for column, name in (("dense_rank", "dense"), ("lexical_rank", "bm25")):
        ranks = stages[name].set_index(["query_id", "passage_id"])["rank"]
        result = [int(ranks.get(key, 0)) for key in zip(deep["query_id"], deep["passage_id"], strict=True)]
        assert deep[column].tolist() == result
        assert max(result) > 1
        assert 0 in deep["lexical_rank"].tolist()
    assert all(facts[f"seconds_per_query_{name}"] > 0 for name in ("bm25", "dense", "hybrid"))


def test_known_queries_are_not_embedded_again(retriever: HybridRetriever, tmp_path: Path) -> None:
    embedded: list[str] = []

    class CountingEncoder(TopicEncoder):
        def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
            embedded.extend(texts)
            return super().encode_queries(texts)

    ids = list(retriever.passage_ids)
    passages = pa.table({"passage_id": ids, "document_id": retriever.document_ids, "access": [["hr"]] * len(ids)})
    dense = DenseIndex(build(TopicEncoder().encode_queries(TEXTS)), ids)
    counting = HybridRetriever(CountingEncoder(), dense, LexicalIndex.build(TEXTS, ids), passages, IndexSettings())
    old = queries_of("bread", "chain", "rain")
    new = queries_of("bread", "oven", "rain", "oven")

    def run(
        queries: pd.DataFrame, name: str, previous: Path | None = None, encoding_seconds: float | None = None
    ) -> dict[str, float | int]:
        (tmp_path / name).mkdir()
        return build_all_candidates(
            queries_of(split="train"),
            queries,
            counting,
            tmp_path / name,
            candidates=3,
            depth=4,
            max_train_queries=1,
            known=[previous] if previous else [],
            encoding_seconds=encoding_seconds,
        )

    run(old, "first")
    embedded.clear()
    facts = run(new, "second", tmp_path / "first", 60.0)
    assert facts["queries_embedded"] == 1
    assert embedded[0] == "oven"
    # Only the measurement of the seconds embeds them all, where the encoder is at work anyway.
    assert sorted(embedded[1:]) == sorted(new["text"].tolist())
    assert facts["seconds_per_query_encoding"] < 60
    embedded.clear()
    facts = run(new, "third", tmp_path / "second", 60.0)
    assert embedded == []
    assert facts["seconds_per_query_encoding"] == 60
    assert facts["seconds_per_query_dense"] > 60 > facts["seconds_per_query_bm25"]
    time_first_stages(queries_of(*["bread"] * 500), counting, 3)
    assert len(embedded) < 500, "a block of them is enough to measure"
    run(new, "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name
