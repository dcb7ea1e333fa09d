from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.rows import Passage
from models.corpus import mapped_passages
from models.corpus.mapped_passages import MappedPassages, write_mapped_passages
from models.store.tables import write_rows
from models.text.passage_text import passage_text

PAIRS = st.lists(
    st.tuples(st.sampled_from(["", "Loom", "Pump"]), st.sampled_from(["Oil it.", "ä", "Loom"])), max_size=8
)


def passages_of(pairs: Sequence[tuple[str, str]]) -> list[Passage]:
    return [
        Passage(f"d{row}#0", f"d{row}", title, text, 5, 5 + len(text), "test", ("hr",) * (row % 2), f"{row:064x}", None)
        for row, (title, text) in enumerate(pairs)
    ]


def mapped(folder: Path, pairs: Sequence[tuple[str, str]]) -> MappedPassages:
    folder.mkdir(exist_ok=True)
    write_rows(passages_of(pairs), Passage, folder / "passages.parquet")
    write_mapped_passages(folder / "passages.parquet", folder)
    return MappedPassages(folder)


def test_passages_are_mapped_as_the_table_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_passages, "_BATCH", 2)
    pairs = [
        ("Loom", "Oil it."),
        ("", "Thunder follows lightning."),
        ("Pump", "Prime it."),
        ("Saw", "Sharpen it."),
        ("", "é"),
    ]
    result = mapped(tmp_path, pairs)
    assert result.table["text"].num_chunks > 1
    assert [result.passage(row) for row in range(len(result))] == passages_of(pairs)
    assert [result.text(row) for row in range(len(result))] == [passage_text(*pair) for pair in pairs]


def test_the_columns_are_views_of_the_file(tmp_path: Path) -> None:
    before = pa.total_allocated_bytes()
    result = mapped(tmp_path, [("Loom", "Oil it every week. " * 500)] * 2000)
    assert len(result.text(1999)) > 9000
    assert pa.total_allocated_bytes() - before < 1_000_000, "of 19 MB of text"


@given(pairs=PAIRS)
def test_a_text_is_known_with_its_title_and_alone_where_one_title_has_it(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    result = mapped(tmp_path_factory.mktemp("passages"), pairs)
    titles: dict[str, set[str]] = {}
    for title, text in pairs:
        titles.setdefault(text, set()).add(title)
    whole = [passage_text(*pair) for pair in pairs]
    assert [result.text(row) for row in result.rows_of(whole).tolist()] == whole
    for text, row in zip(titles, result.rows_of(list(titles)).tolist(), strict=True):
        if text in whole:
            assert result.text(row) == text
        elif len(titles[text]) > 1:
            assert row == -1
        else:
            assert pairs[row][1] == text


def test_a_text_that_is_no_passage_is_unknown(tmp_path: Path) -> None:
    result = mapped(tmp_path, [("Loom", "Oil it."), ("", "Thunder.")])
    assert result.rows_of(["Oil it", "Oil it. ", "\udfff", "", "Thunder."]).tolist() == [-1, -1, -1, -1, 1]
    assert result.rows_of([]).tolist() == []
    assert mapped(tmp_path / "empty", []).rows_of(["Oil it."]).tolist() == [-1]


def test_a_text_with_the_digest_of_a_passage_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = mapped(tmp_path, [("Loom", "Oil it.")])
    digests = mapped_passages._digests
    monkeypatch.setattr(mapped_passages, "_digests", lambda texts: digests(["Oil it."] * len(texts)))
    assert result.rows_of(["Oil it.", "forged"]).tolist() == [0, -1]


def test_equal_passages_give_equal_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        mapped(tmp_path / name, [("Loom", "Oil it."), ("", "ä" * 1001)] * 700)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) == 3
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    mapped(tmp_path, [("Loom", "Oil it.")])
    (tmp_path / mapped_passages.TEXTS_FILE).unlink()
    with pytest.raises(FileNotFoundError) as missing:
        MappedPassages(tmp_path)
    assert missing.value.filename == str(tmp_path / mapped_passages.TEXTS_FILE)
