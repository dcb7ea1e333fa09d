from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.retrieval.passage_ids import IDS_FILE, PassageIds

ids = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=20)


@given(ids)
def test_ids_read_as_the_list_that_they_are(strings: list[str]) -> None:
    column = PassageIds.of(strings)
    assert list(column) == strings
    assert [column[row] for row in range(len(strings))] == strings
    assert [column[-1 - row] for row in range(len(strings))] == strings[::-1]
    assert column[1:3] == strings[1:3]
    assert column == PassageIds.of(iter(strings))
    assert column != PassageIds.of([*strings, "more"])
    with pytest.raises(IndexError):
        column[len(strings)]


@given(ids)
def test_the_order_is_that_of_the_sorted_list(strings: list[str]) -> None:
    """Code points decide, as in Python: letters with accents and emoji come behind those of ASCII."""
    by_order = np.empty(len(strings), dtype=object)
    by_order[PassageIds.of(strings).order] = strings
    assert by_order.tolist() == sorted(strings)


def test_equal_ids_keep_the_order_of_their_rows() -> None:
    assert PassageIds.of(["c", "a", "c", "ä", "a"]).order.tolist() == [2, 0, 3, 4, 1]


@pytest.mark.parametrize("strings", [[], [""], ["p2", "ä", "p10", "p2-1"]])
def test_ids_are_mapped_as_they_were_written(tmp_path: Path, strings: list[str]) -> None:
    written = PassageIds.of(strings)
    assert PassageIds.of(written) is written
    written.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [IDS_FILE]
    mapped = PassageIds.load(tmp_path)
    assert list(mapped) == strings
    assert mapped == written
    np.testing.assert_array_equal(mapped.order, written.order)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        PassageIds.load(tmp_path)
    assert missing.value.filename == str(tmp_path / IDS_FILE)
