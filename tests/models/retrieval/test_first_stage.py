"""The first stage that fits a corpus: what is right is known, since the corpora are made so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from models.retrieval.candidates import build_candidates, first_stage_rankings
from models.retrieval.dense_index import DenseIndex, build
from models.retrieval.first_stage import (
    MIN_QUERIES,
    choose_first_stage,
    fit_first_stage,
)
from models.retrieval.fusion import FIRST_STAGE_FILE, FirstStage, read_first_stage
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.retriever import HybridRetriever
from models.settings import IndexSettings

QUERIES, BROUGHT = 40, 12


def pool_of(dense: float, lexical: float, queries: int = QUERIES, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What both searches brought for some queries: how many deviations a relevant passage is above the others."""
    rng = np.random.default_rng(seed)
    rows = []
    for query in range(queries):
        hit = np.arange(BROUGHT) == int(rng.integers(BROUGHT))
        cosines = 0.4 + 0.1 * (dense * hit + rng.normal(size=BROUGHT))
        words = np.maximum(0.0, 10 + 3 * (lexical * hit + rng.normal(size=BROUGHT)))
        places = [np.argsort(np.argsort(-scores)) for scores in (cosines, words)]
        fused = np.sum([1 / (61 + place) for place in places], axis=0)
        rows += [
            (
                f"q{query:03}",
                f"p{query}-{place}",
                f"d{query}-{place}",
                cosines[place],
                words[place],
                fused[place],
                hit[place],
            )
            for place in range(BROUGHT)
        ]
    columns = "query_id passage_id document_id dense_score lexical_score retriever_score relevant".split()
    table = pd.DataFrame(rows, columns=columns)
    judgments = table.loc[table["relevant"], ["query_id", "document_id"]].assign(grade=1)
    return table.drop(columns="relevant"), judgments


def test_where_words_are_noise_they_decide_nothing() -> None:
    chosen = choose_first_stage(*pool_of(dense=3, lexical=0), IndexSettings())
    assert chosen.first_stage.method in ("dense", "learned")
    assert chosen.figures["dense"] > chosen.figures["rrf"] + 0.1
    weights = chosen.first_stage.weights
    assert 3 * weights.get("lexical", 0.0) < 0.1 * (0.1 * weights["dense"]), "per deviation of each score"


def test_where_meaning_is_noise_it_decides_nothing() -> None:
    chosen = choose_first_stage(*pool_of(dense=0, lexical=3), IndexSettings())
    assert chosen.first_stage.method in ("bm25", "learned")
    assert chosen.figures["bm25"] > chosen.figures["rrf"] + 0.1
    assert abs(chosen.first_stage.weights["dense"]) * 0.1 < 0.3 * 3 * chosen.first_stage.weights["lexical"]


def test_where_both_know_something_their_sum_knows_more() -> None:
    chosen = choose_first_stage(*pool_of(dense=2, lexical=1.2, queries=120), IndexSettings())
    assert chosen.first_stage.method == "learned"
    assert chosen.figures["learned"] > max(chosen.figures[name] for name in ("rrf", "dense", "bm25"))
    assert chosen.first_stage.weights["dense"] > 0


@pytest.mark.parametrize("seed", range(4))
def test_luck_on_few_queries_takes_no_search_alone(seed: int) -> None:
    """Both know the same, so either may lead on some dozen queries."""
    chosen = choose_first_stage(*pool_of(dense=1.5, lexical=1.5, queries=28, seed=seed), IndexSettings())
    assert chosen.first_stage.method in ("learned", "rrf")


def test_queries_copied_from_the_text_never_choose_the_search_by_words() -> None:
    """A sentence finds its own passage by its words: BM25 would win, and real questions are asked in others."""
    pool, judgments = pool_of(dense=0, lexical=3)
    relevant = pool["document_id"].isin(judgments["document_id"])
    # The words tell the passage, but not by how much: no weights of the scores are as good as their order.
    places = pool.groupby("query_id")["lexical_score"].rank()
    pool["lexical_score"] = np.where(relevant, places.max() + 1, places) * pool.groupby("query_id").ngroup().add(1) ** 3
    given = choose_first_stage(pool, judgments, IndexSettings())
    copied = choose_first_stage(pool, judgments, IndexSettings(), copied=True)
    assert given.first_stage.method == "bm25"
    assert given.figures["bm25"] == copied.figures["bm25"] == 1.0
    assert copied.first_stage.method in ("learned", "rrf")


def test_the_learned_figure_is_of_queries_that_were_not_fitted_on() -> None:
    """Where nothing can be learned, fitting on the judged queries themselves would look like a gain."""
    pool, judgments = pool_of(dense=0, lexical=0, queries=60)
    figures = choose_first_stage(pool, judgments, IndexSettings()).figures
    chance = float(np.mean(1 / np.log2(np.arange(2, 12)))) * 10 / BROUGHT
    assert figures["learned"] < chance + 0.08
    table = pool.merge(judgments, how="left", on=["query_id", "document_id"]).fillna({"grade": 0})
    fitted = fit_first_stage(table)
    scores = fitted.scores([], pool["dense_score"].to_numpy(), pool["lexical_score"].to_numpy())
    assert len(scores) == len(pool)


def test_few_development_queries_choose_nothing_and_it_says_so() -> None:
    chosen = choose_first_stage(*pool_of(dense=3, lexical=0, queries=MIN_QUERIES - 1), IndexSettings(rrf_k=7))
    assert chosen.first_stage == FirstStage(rrf_k=7)
    assert (
        chosen.reason
        == f"{MIN_QUERIES - 1} development queries have a relevant candidate, {MIN_QUERIES} are needed to choose"
    )
    assert chosen.figures == {}
    pool, judgments = pool_of(dense=3, lexical=0)
    assert choose_first_stage(pool, judgments.assign(grade=0), IndexSettings()).queries == 0
    assert choose_first_stage(pool.iloc[:0], judgments.iloc[:0], IndexSettings()).first_stage.method == "rrf"


@pytest.mark.parametrize("fusion", ["rrf", "dense", "bm25", "learned"])
def test_the_setting_names_the_method(fusion: str) -> None:
    settings = IndexSettings.model_validate({"fusion": fusion})
    chosen = choose_first_stage(*pool_of(dense=0, lexical=3), settings)
    assert chosen.first_stage.method == fusion
    assert chosen.reason == f"index.fusion is {fusion}"


def test_queries_without_a_relevant_candidate_do_not_count() -> None:
    pool, judgments = pool_of(dense=2, lexical=1)
    missed = pool.assign(query_id="x" + pool["query_id"], document_id="x" + pool["document_id"])
    alone = choose_first_stage(pool, judgments, IndexSettings())
    both = choose_first_stage(pd.concat([pool, missed], ignore_index=True), judgments, IndexSettings())
    assert both == alone
    assert alone.queries == QUERIES


def test_choosing_twice_is_the_same_whatever_the_order_of_the_rows() -> None:
    pool, judgments = pool_of(dense=2, lexical=1)
    shuffled = pool.sample(frac=1, random_state=1).reset_index(drop=True)
    first, second = (choose_first_stage(table, judgments, IndexSettings()) for table in (pool, shuffled))
    assert first.first_stage.weights == pytest.approx(second.first_stage.weights, rel=1e-4)
    assert first.figures == pytest.approx(second.figures)


def test_what_is_stored_is_what_serves(tmp_path: Path) -> None:
    chosen = choose_first_stage(*pool_of(dense=2, lexical=1), IndexSettings())
    (tmp_path / FIRST_STAGE_FILE).write_text(json.dumps(chosen.to_dict()))
    assert read_first_stage(tmp_path) == chosen.first_stage
    assert read_first_stage(tmp_path / "bundle of an older version") is None


def test_one_search_alone_is_its_own_order_and_the_other_one_breaks_ties() -> None:
    cosines, words = np.array([0.5, 0.9, 0.5, 0.1]), np.array([0.0, 0.0, 9.0, 30.0])
    assert np.argsort(-FirstStage.alone("dense").scores([], cosines, words)).tolist() == [1, 2, 0, 3]
    assert np.argsort(-FirstStage.alone("bm25").scores([], cosines, words)).tolist() == [3, 2, 1, 0]


def test_a_callers_own_texts_are_scored_as_passages_are() -> None:
    cosines, words = np.array([0.5, 0.9, 0.2]), np.array([0.0, 1.0, 4.0])
    by_ranks = FirstStage(rrf_k=1).scores_of_texts(cosines, words)
    assert by_ranks.tolist() == pytest.approx([1 / 3, 1 / 2 + 1 / 3, 1 / 4 + 1 / 2])
    weights = FirstStage("learned", {"dense": 2.0, "lexical": 0.5, "lexical_log": 1.0})
    expected = 2 * cosines + 0.5 * words + np.log1p(words)
    assert weights.scores_of_texts(cosines, words).tolist() == pytest.approx(expected.tolist())
    assert FirstStage().scores_of_texts(cosines[:0], words[:0]).tolist() == []


class Spelling:
    """Embeds `m<number>` of a text as a direction of its own: words have no meaning here."""

    dimensions = 40

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), self.dimensions), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row, int(text.partition("m")[2].partition(" ")[0])] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def retriever() -> HybridRetriever:
    """Forty passages, each of a meaning; the words of passage i are asked for with the meaning of passage i + 20."""
    texts = [f"m{row} word{row}" for row in range(40)]
    ids = [f"p{row:02}" for row in range(40)]
    passages = pa.table({"passage_id": ids, "document_id": ids, "access": [[]] * 40})
    dense = DenseIndex(build(Spelling().encode_queries(texts)), ids)
    lexical = LexicalIndex.build([text.partition(" ")[2] for text in texts], ids)
    return HybridRetriever(Spelling(), dense, lexical, passages, IndexSettings(depth=2))


def asked(split: str = "dev") -> pd.DataFrame:
    return pd.DataFrame(
        {"query_id": [f"q{row:02}" for row in range(20)], "text": [f"m{row + 20} word{row}" for row in range(20)]}
    ).assign(split=split)


def test_the_candidates_are_the_union_of_what_the_searches_bring(retriever: HybridRetriever) -> None:
    for order in (FirstStage(), FirstStage.alone("dense"), FirstStage.alone("bm25")):
        pool = build_candidates(asked(), retriever.ordered_by(order), 4, depth=2)
        for row, (_, rows) in enumerate(pool.groupby("query_id")):
            assert {f"p{row:02}", f"p{row + 20:02}"} <= set(rows["passage_id"]), "one brought by words, one by meaning"
            assert rows["passage_id"].is_unique


def test_the_first_of_the_chosen_order_is_what_the_judgments_want(retriever: HybridRetriever) -> None:
    """Reciprocal ranks cannot tell the passage of the meaning from that of the words; the development queries can."""
    judgments = pd.DataFrame({"query_id": asked()["query_id"], "grade": 1})
    pool = build_candidates(asked(), retriever, 4, depth=2)
    for wanted, method in ((20, "dense"), (0, "bm25")):
        relevant = judgments.assign(document_id=[f"p{row + wanted:02}" for row in range(20)])
        chosen = choose_first_stage(pool, relevant, IndexSettings(depth=2))
        assert chosen.first_stage.method in (method, "learned")
        assert chosen.figures[method] == 1.0
        lean = first_stage_rankings(asked(), retriever.ordered_by(chosen.first_stage), 2)["lean"]
        assert lean.loc[lean["rank"] == 1, "document_id"].tolist() == relevant["document_id"].tolist()


def test_reciprocal_ranks_stay_a_system_beside_the_chosen_order(retriever: HybridRetriever) -> None:
    by_ranks = first_stage_rankings(asked(), retriever, 4)
    by_dense = first_stage_rankings(asked(), retriever.ordered_by(FirstStage.alone("dense")), 4)
    for name in ("bm25", "dense", "hybrid"):
        pd.testing.assert_frame_equal(by_ranks[name], by_dense[name])
    pd.testing.assert_frame_equal(by_ranks["hybrid"], by_ranks["lean"])
    assert by_dense["lean"]["passage_id"].tolist() != by_dense["hybrid"]["passage_id"].tolist()
