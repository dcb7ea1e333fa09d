"""Sentences and their places in a text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.text.sentences import split_sentences

TEXTS = st.lists(st.sampled_from([*"abcdeAB.!?\n -[1]>。é一", " merge ", " frames "]), max_size=120).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Some, e.g. Large ones. See Fig. 3 by J. Smith.", ["Some, e.g. Large ones.", "See Fig. 3 by J. Smith."]),
        ('He said "stop." Then left.', ['He said "stop."', "Then left."]),
        ("第一句。第二句\uff01", ["第一句。", "第二句\uff01"]),
        ("Title\n\n- first item\n- second item", ["Title", "- first item", "- second item"]),
        ("call pandas.merge now", ["call pandas.merge now"]),
        ("   ", []),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in split_sentences(text)] == expected


@given(TEXTS)
def test_sentences_are_in_order_and_lose_only_white_space_and_rules(text: str) -> None:
    spans = list(split_sentences(text))

    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]
