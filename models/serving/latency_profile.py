"""A bundle as it serves: every test query retrieved and ranked inside the budget of a request, timed and judged."""

from __future__ import annotations

import time
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.cross_encoder.pairwise import Progress
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import SERVED, evaluate_ranking
from models.measures.latency import summarize
from models.serving.protocol import candidates_of
from models.serving.steps import LATENCY_PROFILE
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.serving.loaded_bundle import LoadedBundle

_FEWEST = 40
"""Requests timed, at least; of fewer queries some are asked again."""


def make_latency_profile(
    store: ArtifactStore,
    settings: Settings,
    bundle: Artifact,
    evaluation_set: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """What a bundle answers to the test queries on this machine, and in what time."""
    build = partial(profile_bundle, bundle, evaluation_set, settings, progress=progress)
    return LATENCY_PROFILE.get_or_create(store, settings, build, inputs=(bundle, evaluation_set))


def profile_bundle(
    bundle: Artifact, evaluation_set: Artifact, settings: Settings, folder: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Load the bundle, reproduce its golden scores, and ask it every test query, one after the other.

    A request is retrieval and ranking of `serving.candidates` passages inside `tiers.budget_ms`, by the indexes, models
    and scores of the bundle. Writes latency.json, requests.parquet (`query_id, milliseconds, degraded`) and
    per_query.parquet: what the answers are worth, as system `served`.
    """
    from models.serving.loaded_bundle import load_bundle

    started = time.perf_counter()
    loaded = load_bundle(bundle, serving=settings.serving)
    load_seconds = time.perf_counter() - started
    try:
        golden = loaded.reproduce_golden(settings.gate.max_golden_difference)
        test, judgments = split_of(evaluation_set, "test")
        requests, ranking = _ask(loaded, test, settings, progress)
    finally:
        loaded.close()
    write_table(requests, folder / "requests.parquet")
    write_table(evaluate_ranking(SERVED, ranking, judgments), folder / "per_query.parquet")
    facts = {
        **summarize(requests["milliseconds"].tolist()).to_dict(),
        "degraded_share": float(requests["degraded"].mean()),
        "load_seconds": load_seconds,
        "golden_queries": golden.queries,
        "golden_max_difference": golden.max_difference,
        "golden_order_equal": golden.order_equal,
    }
    (folder / "latency.json").write_bytes(canonical_json(facts))
    return facts


def _ask(
    loaded: LoadedBundle, queries: pd.DataFrame, settings: Settings, progress: Progress | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The requests with their times, and the ranking that the first request of each query got."""
    asked = list(zip(queries["query_id"].tolist(), queries["text"].tolist(), strict=True))
    total = max(len(asked), _FEWEST)
    requests, rows = [], []
    for number, (query_id, text) in enumerate(islice(cycle(asked), total)):
        began = time.perf_counter()
        candidates = loaded.retrieve(text, candidates_of(loaded, settings.serving), None)
        ranking = loaded.rank_candidates(text, candidates, settings.tiers.budget_ms)
        requests.append((query_id, 1000 * (time.perf_counter() - began), ranking.degraded))
        if number < len(asked):
            rows += [
                (query_id, candidates[item.index].passage_id, candidates[item.index].document_id, rank, item.logit)
                for rank, item in enumerate(ranking.items, 1)
            ]
        if progress is not None:
            progress(number + 1, total)
    return (
        pd.DataFrame(requests, columns=["query_id", "milliseconds", "degraded"]),
        pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank", "score"]),
    )
