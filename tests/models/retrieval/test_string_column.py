from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.retrieval.string_column import ID_FILES, PASSAGE_IDS, PassageIds, StringColumn, id_places

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=20)


@given(texts)
def test_a_column_reads_as_the_list_of_its_strings(strings: list[str]) -> None:
    column = StringColumn.of(strings)
    assert list(column) == strings
    assert len(column) == len(strings)
    assert column[1:3] == strings[1:3]
    assert [column[-1 - place] for place in range(len(strings))] == strings[::-1]
    assert column == StringColumn.of(iter(strings))
    assert column != StringColumn.of([*strings, "more"])
    with pytest.raises(IndexError):
        column[len(strings)]


@given(texts, st.text(max_size=3))
def test_a_string_is_found_in_a_sorted_column(strings: list[str], other: str) -> None:
    ordered = sorted(set(strings))
    column = StringColumn.of(ordered)
    assert [column.find(text) for text in ordered] == list(range(len(ordered)))
    assert column.find(other) == (ordered.index(other) if other in ordered else -1)


def test_strings_of_equal_bytes_but_other_bounds_are_others() -> None:
    assert StringColumn.of(["ab", "c"]) != StringColumn.of(["a", "bc"])


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("strings", [[], [""], ["p2", "ä", "p10", "p2-1"]])
def test_ids_are_read_as_they_were_written(tmp_path: Path, strings: list[str], mmap: bool) -> None:
    written = PassageIds.of(strings)
    assert PassageIds.of(written) is written
    written.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(ID_FILES)
    found = PassageIds.read(tmp_path, mmap)
    assert list(found) == strings
    assert found == written
    np.testing.assert_array_equal(found.places, id_places(strings))
    if mmap and strings:
        assert isinstance(found.places.base, np.memmap)


def test_ids_of_an_index_made_before_there_were_columns_are_read(tmp_path: Path) -> None:
    (tmp_path / f"{PASSAGE_IDS}.json").write_text(json.dumps(["b", "a"]))
    found = PassageIds.read(tmp_path)
    assert (list(found), found.places.tolist()) == (["b", "a"], [1, 0])


def test_the_place_of_an_id_is_that_in_the_sorted_list() -> None:
    assert id_places(["c", "a", "b", "ä"]).tolist() == [2, 0, 1, 3]
    assert id_places([]).tolist() == []
