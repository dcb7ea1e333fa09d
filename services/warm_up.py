"""The first requests of a bundle, made by the service itself before any caller's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from models.errors import ReleaseError
from models.retrieval.passage_filter import PassageFilter
from models.serving.protocol import Ranking, ServedBundle, candidates_of, ranking_fault

if TYPE_CHECKING:
    from models.settings import Settings

_UNHURRIED_MS = 60_000.0
_PROBE = "What does this document describe?"
_QUERIES = 3

T = TypeVar("T")


def warm_up(bundle: ServedBundle, settings: Settings) -> dict[str, float]:
    """Run every path of the bundle with its own passages' titles as queries; milliseconds of each path, warm.

    The first passes have time for every tier, so that each model's kernels and buffers exist; the last one is measured
    under the configured budget. Raises `ReleaseError` when an answer is not a ranking of what was asked.
    """
    count = candidates_of(bundle, settings.serving)
    probe = bundle.retrieve(_PROBE, count, PassageFilter())
    passages = [bundle.passage(candidate) for candidate in probe]
    queries = [passage.title.strip() or _PROBE for passage in passages[:_QUERIES]] or [_PROBE]
    documents = [passage.text for passage in passages] or [_PROBE]
    measured: dict[str, float] = {}
    for query, budget_ms in [*((query, _UNHURRIED_MS) for query in queries), (queries[0], settings.tiers.budget_ms)]:
        candidates, measured["retrieve"] = _timed(lambda query=query: bundle.retrieve(query, count, PassageFilter()))
        ranking, measured["rank_candidates"] = _timed(
            lambda query=query, retrieved=candidates, ms=budget_ms: bundle.rank_candidates(query, retrieved, ms)
        )
        _check(ranking, len(candidates), "rank_candidates")
        ranking, measured["rank_documents"] = _timed(
            lambda query=query, ms=budget_ms: bundle.rank_documents(query, documents, ms)
        )
        _check(ranking, len(documents), "rank_documents")
    _check(bundle.rank_documents(queries[0], documents, 0.0), len(documents), "rank_documents without time")
    _check(bundle.keep_order(documents), len(documents), "keep_order")
    return {name: round(milliseconds, 2) for name, milliseconds in measured.items()}


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = call()
    return result, (time.perf_counter() - started) * 1000


def _check(ranking: Ranking, count: int, path: str) -> None:
    if fault := ranking_fault(ranking, count):
        raise ReleaseError(f"warm-up: {path}: {fault}")
