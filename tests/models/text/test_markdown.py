"""Tables that no cell can break."""

from __future__ import annotations

from models.text.markdown import table_lines


def test_cells_keep_their_markdown_and_cannot_break_the_table() -> None:
    lines = table_lines(("name", ""), [("`a|b`", 1), ("two\nlines", None)])
    assert lines == ["| name |  |", "|---|---|", "| `a\\|b` | 1 |", "| two lines | None |"]


def test_a_table_without_rows_is_its_header() -> None:
    assert table_lines(("a",), []) == ["| a |", "|---|"]
