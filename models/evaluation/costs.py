"""Seconds per query of each system, from measured seconds of a pair and of retrieval."""

from __future__ import annotations

from collections.abc import Mapping

from models.contracts.tiers import LEAN, MODEL_TIERS


def seconds_per_query(
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
        **{tier.name: base + per_query * pair[tier.name] for tier in MODEL_TIERS},
        "tiered": base + sum(tiered[name] * pair[name] for name in tiered),
    }
