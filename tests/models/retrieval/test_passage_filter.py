from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.retrieval.passage_filter import FilterColumns, PassageFilter

LABELS = st.sampled_from(["hr", "legal", "board", "ä"])
ACCESS = pa.list_(pa.string())


def columns_of(access: Sequence[Sequence[str]], pieces: int = 1) -> FilterColumns:
    parts = [pa.array(list(access[start::pieces]), type=ACCESS) for start in range(pieces)]
    return FilterColumns(pa.table({"access": pa.chunked_array(parts, type=ACCESS)}))


@given(access=st.lists(st.lists(LABELS, unique=True, max_size=3), max_size=30), labels=st.frozensets(LABELS))
def test_a_passage_passes_when_it_is_public_or_carries_a_label_of_the_caller(
    access: list[list[str]], labels: frozenset[str]
) -> None:
    mask = columns_of(access).mask(PassageFilter(labels))
    expected = [not item or bool(labels & set(item)) for item in access]
    assert (np.ones(len(access), dtype=bool) if mask is None else mask).tolist() == expected


def test_a_filter_that_all_passages_pass_is_none() -> None:
    assert columns_of([[], ["hr"]]).mask(PassageFilter(frozenset({"hr"}))) is None
    assert columns_of([]).mask(PassageFilter()) is None


def test_columns_may_come_in_pieces() -> None:
    mask = columns_of([["hr"], [], [], ["hr", "legal"]], pieces=2).mask(PassageFilter(frozenset({"legal"})))
    assert mask is not None
    assert mask.tolist() == [False, True, True, True]


@pytest.mark.parametrize("labels", [frozenset(), frozenset({"unknown"})])
def test_unknown_labels_open_nothing(labels: frozenset[str]) -> None:
    mask = columns_of([["hr"], []]).mask(PassageFilter(labels))
    assert mask is not None
    assert mask.tolist() == [False, True]


def test_one_callers_mask_does_not_open_passages_for_the_next() -> None:
    columns = columns_of([["hr"], ["legal"], []])
    for label, expected in (("hr", [True, False, True]), ("legal", [False, True, True])):
        mask = columns.mask(PassageFilter(frozenset({label})))
        assert mask is not None
        assert mask.tolist() == expected
