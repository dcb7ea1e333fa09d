"""Seconds per query, from an artifact's summary to every system."""

from __future__ import annotations

import pytest

from models.measures.query_seconds import first_stage_seconds, in_summary, system_seconds

FIRST = {"bm25": 0.001, "dense": 0.004, "hybrid": 0.006}


def test_a_summary_keeps_the_seconds_of_the_first_stages() -> None:
    summary = {"pairs": 3, **in_summary({"encoding": 0.003, **FIRST})}
    assert summary["seconds_per_query_encoding"] == 0.003
    assert first_stage_seconds(summary) == FIRST
    with pytest.raises(KeyError, match="seconds_per_query_bm25"):
        first_stage_seconds({"pairs": 3})


def test_times_add_up_from_the_seconds_of_a_pair() -> None:
    pair = {"compact": 0.01, "large": 0.03}
    tiered = {"compact": 10.0, "large": 5.0}
    result = system_seconds(pair, FIRST, 20.0, tiered)
    assert result == pytest.approx(
        {**FIRST, "lean": 0.006, "compact": 0.206, "large": 0.606, "tiered": 0.006 + 0.1 + 0.15}
    )
