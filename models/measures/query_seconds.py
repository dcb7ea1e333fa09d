"""Seconds per query: how the summary of an artifact keeps those of the first stages, and those of all systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.contracts.tiers import FIRST_STAGES, LEAN

_SECONDS = "seconds_per_query_"


def in_summary(seconds: Mapping[str, float]) -> dict[str, float]:
    """Measured seconds by what they are of, under the names that a summary gives them."""
    return {f"{_SECONDS}{name}": value for name, value in seconds.items()}


def first_stage_seconds(summary: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each first stage, from the summary of candidates or pooled candidates."""
    return {name: float(summary[f"{_SECONDS}{name}"]) for name in FIRST_STAGES}


def system_seconds(
    pair: Mapping[str, float],
    first_stage: Mapping[str, float],
    per_query: float,
    tiered: Mapping[str, float],
) -> dict[str, float]:
    """Seconds of each system per query, retrieval included, from the measured seconds of a pair.

    `per_query` is the mean number of candidates, `tiered` that of the pairs which the tiered system gives each model;
    `first_stage` has the seconds of `bm25`, `dense` and `hybrid`.
    """
    base = first_stage["hybrid"]
    return {
        **first_stage,
        LEAN.name: base,
        **{name: base + per_query * seconds for name, seconds in pair.items()},
        "tiered": base + sum(tiered[name] * seconds for name, seconds in pair.items()),
    }
