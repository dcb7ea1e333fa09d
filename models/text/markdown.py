"""Markdown tables of reports, cards and check results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_lines(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table (GitHub's dialect). Bars and line ends in cells cannot break it; other Markdown is kept."""
    return [_line(header), f"|{'---|' * len(header)}", *(_line(row) for row in rows)]


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
