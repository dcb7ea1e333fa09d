from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.corpus.external_sort import SortedSpill, Spill
from models.errors import ArtifactError
from models.store.durable_files import digest_file
from models.store.tables import write_rows


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    number: int
    labels: tuple[str, ...] = ()
    note: str | None = None


def _rows(count: int) -> list[_Row]:
    rows = [_Row(f"n{n % 1000:04d}", n, ("a", "🙂") if n % 2 else (), None if n % 3 else "note") for n in range(count)]
    random.Random(0).shuffle(rows)
    return rows


def _key(row: _Row) -> tuple[str, int]:
    return row.name, row.number


@pytest.mark.parametrize("count", [0, 1, 256, 1000])
def test_rows_come_back_as_they_were_added(tmp_path: Path, count: int) -> None:
    rows = _rows(count)
    spill = Spill(_Row, tmp_path / "rows.arrow")
    spill.add(rows[: count // 2])
    spill.add(rows[count // 2 :])
    assert spill.count == count
    assert list(spill) == rows
    assert list(spill) == rows


@pytest.mark.parametrize("count", [0, 10, 5000])
def test_rows_come_back_sorted_whatever_their_order(tmp_path: Path, count: int) -> None:
    rows = _rows(count)
    with SortedSpill(_Row, tmp_path / "rows.sqlite", _key) as spill:
        for start in range(0, count, 7):
            spill.add(rows[start : start + 7])
        assert spill.count == count
        assert list(spill) == sorted(rows, key=_key)
        assert list(spill) == sorted(rows, key=_key)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2)), max_size=30))
def test_any_keys_are_sorted_as_python_sorts_them_and_equal_ones_stay_in_order(keys: list[tuple[str, int]]) -> None:
    rows = [_Row(name, number, (str(index),)) for index, (name, number) in enumerate(keys)]
    with TemporaryDirectory() as folder, SortedSpill(_Row, Path(folder) / "rows.sqlite", _key) as spill:
        spill.add(rows)
        assert list(spill) == sorted(rows, key=_key)


def test_equal_rows_give_equal_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.store.tables._GROUP_ROWS", 100)
    rows = sorted(_rows(350), key=_key)
    assert write_rows(iter(rows), _Row, tmp_path / "a" / "rows.parquet") == 350
    assert write_rows(rows, _Row, tmp_path / "b.parquet") == 350
    assert digest_file(tmp_path / "a" / "rows.parquet") == digest_file(tmp_path / "b.parquet")
    table = pd.read_parquet(tmp_path / "b.parquet")
    assert list(table["number"]) == [row.number for row in rows]
    assert [tuple(labels) for labels in table["labels"]] == [row.labels for row in rows]
    assert write_rows([], _Row, tmp_path / "none.parquet") == 0
    assert list(pd.read_parquet(tmp_path / "none.parquet").columns) == ["name", "number", "labels", "note"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"rows\.arrow cannot be written"):
        list(_added(Spill(_Row, tmp_path / "file" / "rows.arrow")))
    with pytest.raises(ArtifactError, match=r"rows\.sqlite cannot be written"):
        SortedSpill(_Row, tmp_path / "file" / "rows.sqlite", _key)
    with pytest.raises(ArtifactError, match=r"rows\.parquet cannot be written"):
        write_rows(_rows(3), _Row, tmp_path / "file" / "rows.parquet")


def _added(spill: Spill[_Row]) -> Spill[_Row]:
    spill.add(_rows(3))
    return spill
