"""Passages read from disk by id and by place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.corpus import passage_table
from models.corpus.passage_table import PassageTable
from models.store.tables import write_table


@pytest.fixture
def passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PassageTable:
    monkeypatch.setattr(passage_table, "_BATCH", 7)
    names = [f"d{index}#0" for index in range(40)]
    table = pd.DataFrame({"passage_id": names, "title": "", "text": [f"text {index}" for index in range(40)]})
    write_table(table, tmp_path / "passages.parquet")
    return PassageTable(tmp_path / "passages.parquet")


def test_passages_are_read_by_id_in_the_order_of_the_table(passages: PassageTable) -> None:
    assert passages.count == 40
    rows = passages.read(["d39#0", "d3#0", "d3#0", "other"], ["text"])
    assert rows.to_dict("list") == {"passage_id": ["d3#0", "d39#0"], "text": ["text 3", "text 39"]}
    assert list(passages.read([], ["title"]).columns) == ["passage_id", "title"]


def test_passages_are_read_by_place_in_the_order_asked(passages: PassageTable) -> None:
    result = passages.at(np.array([39, 0, 13, 0]), ["text"])
    assert result["passage_id"].tolist() == ["d39#0", "d0#0", "d13#0", "d0#0"]
    assert result["text"].tolist() == ["text 39", "text 0", "text 13", "text 0"]
    assert len(passages.at(np.empty(0, dtype=np.int64), ["text"])) == 0


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    table = pd.DataFrame({"passage_id": [], "text": []}).astype("str")
    write_table(table, tmp_path / "passages.parquet")
    passages = PassageTable(tmp_path / "passages.parquet")
    assert passages.count == 0
    assert list(passages.read(["a"], ["text"]).columns) == ["passage_id", "text"]
