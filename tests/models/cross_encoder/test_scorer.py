"""Scoring with cross-encoders, on one small enough to be trained in a test."""

from __future__ import annotations

import numpy as np
import pytest

from models.cross_encoder.scorer import CrossEncoderScorer, resolve_device
from models.training.fine_tuning import train_large
from tests.tiny_cross_encoder import examples, tiny_settings, write_base


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoderScorer:
    base, folder = write_base(tmp_path_factory.mktemp("base")), tmp_path_factory.mktemp("large")
    train_large(examples(), tiny_settings(base), folder)
    return CrossEncoderScorer.load(folder, 32)


def test_scores_do_not_depend_on_the_batch_or_the_order(scorer: CrossEncoderScorer) -> None:
    rows = examples(8)
    pairs = list(zip(rows["query"], rows["passage"] + " more" * 3, strict=True))
    whole = scorer.logits(pairs)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(scorer.logits(pairs, batch_size=1), whole, atol=1e-4)
    np.testing.assert_allclose(scorer.logits(pairs[::-1])[::-1], whole, atol=1e-4)
    np.testing.assert_array_equal(scorer.logits_of(scorer.encode(pairs)), whole)


def test_progress_counts_the_pairs(scorer: CrossEncoderScorer) -> None:
    told: list[tuple[int, int]] = []
    scorer.logits([("a", "b")] * 5, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_nothing_scores_nothing(scorer: CrossEncoderScorer) -> None:
    assert scorer.encode([]) == []
    assert scorer.logits([]).shape == (0,)


@pytest.mark.parametrize(
    ("query", "passage"),
    [
        ("", ""),
        ("", "text"),
        ("query", ""),
        (" ", "\n\t"),
        ("\x00", "\u202e"),
        ("水", "🧽" * 40),
        ("e\u0301" * 90, "ﬃ"),
    ],
)
def test_any_pair_has_a_finite_score(scorer: CrossEncoderScorer, query: str, passage: str) -> None:
    (encoding,) = scorer.encode([(query, passage)])
    assert 3 <= len(encoding) <= 32
    assert np.isfinite(scorer.logits([(query, passage)])).all()


def words(count: int) -> str:
    return " ".join(["oil"] * count)


@pytest.mark.parametrize(
    ("query", "passage", "query_tokens", "passage_tokens"),
    [(5, 5, 5, 5), (5, 100, 5, 24), (14, 15, 14, 15), (14, 16, 14, 15), (100, 100, 16, 13), (100, 1, 16, 1)],
)
def test_the_passage_is_cut_and_the_query_only_beyond_half(
    scorer: CrossEncoderScorer, query: int, passage: int, query_tokens: int, passage_tokens: int
) -> None:
    (encoding,) = scorer.encode([(words(query), words(passage))])
    # [CLS] and a separator belong to the first text, the last separator to the second.
    kept = np.bincount(encoding.type_ids, minlength=2) - [2, 1]
    assert kept.tolist() == [query_tokens, passage_tokens]
    assert len(encoding) == query_tokens + passage_tokens + 3 <= 32
    assert encoding.cut == (passage > passage_tokens)


def test_a_long_query_is_cut_at_a_word_not_emptied(scorer: CrossEncoderScorer) -> None:
    long = "clean the water filter " * 50
    assert scorer.logits([(long, "a")])[0] == scorer.logits([(long + " and more", "a")])[0]
    whole, query = scorer.encode([(long, "a"), ("clean the water filter", "a")])
    np.testing.assert_array_equal(whole.ids[1:5], query.ids[1:5])


def test_a_named_device_is_taken_and_auto_finds_one() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda", "mps")
