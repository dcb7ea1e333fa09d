from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.text.near_duplicates import alike_sample, near_duplicate_of, near_duplicates, overlap

QUESTIONS = [
    "What are the symptoms of lactose intolerance?",
    "What are the symptoms of Wilson disease?",
    "How is bread baked in an oven?",
]


def apart(count: int, first: int = 0) -> NDArray[np.float32]:
    """Vectors at right angles to each other."""
    return np.eye(64, dtype=np.float32)[first : first + count]


@pytest.mark.parametrize(
    ("reworded", "index"),
    [
        ("SYMPTOMS of lactose INTOLERANCE ??", 0),
        ("lactose intolerance: what are its symptoms", 0),
        ("which symptom might a lactose intolerance have", 0),
        ("Wilson's disease symptoms", 1),
    ],
)
def test_form_does_not_count(reworded: str, index: int) -> None:
    result = near_duplicates([reworded], QUESTIONS, 0.75, 0.9, apart(1), apart(3, 1))
    assert result[["row", "other"]].to_numpy().tolist() == [[0, index]]
    assert result["overlap"][0] == 1


def test_the_same_template_about_another_thing_is_another_question() -> None:
    assert overlap(QUESTIONS[0], QUESTIONS[1]) < 0.5
    assert near_duplicates(QUESTIONS[:1], QUESTIONS[1:], 0.75, 0.9, apart(1), apart(2, 1)).empty


def test_other_words_are_found_by_their_vectors() -> None:
    vectors = apart(3, 1)
    result = near_duplicates(["Baking loaves"], QUESTIONS, 0.75, 0.9, vectors[2:], vectors)
    assert result[["row", "other", "cosine"]].to_numpy().tolist() == [[0, 2, 1]]
    assert result["overlap"][0] < 0.75


def test_nothing_is_near_nothing() -> None:
    none = np.empty((0, 64), dtype=np.float32)
    assert near_duplicates([], QUESTIONS, 0.75, 0.9, none, apart(3)).empty
    assert near_duplicates(QUESTIONS, [], 0.75, 0.9, apart(3), none).empty


def test_blocks_give_what_one_pair_at_a_time_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{word} {number} of the pump" for word in ("valve", "seal", "rotor") for number in range(5)]
    vectors = np.random.default_rng(0).normal(size=(15, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = near_duplicates(texts, QUESTIONS + texts[::2], 0.6, 0.9, vectors, np.vstack([apart(3), vectors[::2]]))
    monkeypatch.setattr("models.text.near_duplicates._ROWS_AT_ONCE", 4)
    parts = near_duplicates(texts, QUESTIONS + texts[::2], 0.6, 0.9, vectors, np.vstack([apart(3), vectors[::2]]))
    assert len(whole) > 4
    # A product of another shape may be rounded otherwise.
    pd.testing.assert_frame_equal(parts, whole, atol=1e-6)


WORDS = st.lists(st.sampled_from("pump valve seal rotor the of what is Pump? SEAL".split()), max_size=8).map(" ".join)


@given(texts=st.lists(WORDS, min_size=1, max_size=6), others=st.lists(WORDS, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_pair_is_found_exactly_when_the_sets_overlap_enough(texts: list[str], others: list[str]) -> None:
    result = near_duplicates(texts, others, 0.5, 0.9, apart(len(texts)), apart(len(others), 8))
    best = {row: max(overlap(text, other) for other in others) for row, text in enumerate(texts)}
    assert set(result["row"]) == {row for row, shared in best.items() if shared >= 0.5}
    assert all(abs(shared - best[row]) < 1e-6 for row, shared in zip(result["row"], result["overlap"], strict=True))


def _prose(seed: int, words: int = 60) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"word{number}" for number in random.integers(0, 5000, size=words)]


def test_passages_that_nearly_repeat_another_name_it() -> None:
    texts = [" ".join(_prose(seed)) for seed in range(300)]
    copies = {300: 7, 301: 120}
    texts += [texts[7].replace("word", "WORD"), " ".join([*_prose(120), "one", "more"])]
    texts += ["", "", "one two three"]
    result = near_duplicate_of(texts)
    assert {row: other for row, other in enumerate(result) if other is not None} == {
        **copies,
        **{other: row for row, other in copies.items()},
    }


def test_half_of_a_passage_is_another_passage() -> None:
    halves = [" ".join([*_prose(seed, 30), *_prose(seed + 1000, 30)]) for seed in range(50)]
    others = [" ".join([*_prose(seed, 30), *_prose(seed + 2000, 30)]) for seed in range(50)]
    assert set(near_duplicate_of([*halves, *others])) == {None}


def test_a_sample_keeps_what_is_alike_together() -> None:
    texts = [" ".join(_prose(seed)) for seed in range(400)]
    pairs = [*texts, *(f"{text} end" for text in texts)]
    sample = set(alike_sample(pairs, 80))
    assert 60 <= len(sample) <= 110
    together = sum((row + 400) in sample for row in sample if row < 400)
    assert together > 0.85 * sum(row < 400 for row in sample)
    assert alike_sample(texts, 400) == list(range(400))
