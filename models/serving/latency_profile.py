"""Time rerank requests on a loaded bundle, and compare it with its golden scores."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from models.cross_encoder.pairwise import Progress
from models.measures.latency import summarize
from models.serving.steps import LATENCY_PROFILE
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json

_PROFILED = 40


def make_latency_profile(
    store: ArtifactStore, settings: Settings, bundle: Artifact, progress: Progress | None = None
) -> Artifact:
    """The milliseconds of requests to a bundle on this machine."""
    build = partial(profile_bundle, bundle, settings, progress=progress)
    return LATENCY_PROFILE.get_or_create(store, settings, build, inputs=(bundle,))


def profile_bundle(
    bundle: Artifact, settings: Settings, folder: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Load the bundle, reproduce its golden scores, and time rerank requests one after the other; writes latency.json.

    A request is retrieval and ranking of `serving.candidates` passages inside `tiers.budget_ms`.
    """
    from models.serving.loaded_bundle import load_bundle

    started = time.perf_counter()
    loaded = load_bundle(bundle, serving=settings.serving)
    load_seconds = time.perf_counter() - started
    golden = loaded.reproduce_golden(settings.gate.max_golden_difference)
    queries = [entry.query for entry in loaded.golden] or ["how is this used"]
    samples, degraded = [], 0
    for number in range(_PROFILED):
        query = queries[number % len(queries)]
        began = time.perf_counter()
        candidates = loaded.retrieve(query, settings.serving.candidates, None)
        degraded += loaded.rank_candidates(query, candidates, settings.tiers.budget_ms).degraded
        samples.append(1000 * (time.perf_counter() - began))
        if progress is not None:
            progress(number + 1, _PROFILED)
    summary = summarize(samples)
    loaded.close()
    facts = {
        **summary.to_dict(),
        "degraded_share": degraded / _PROFILED,
        "load_seconds": load_seconds,
        "golden_queries": golden.queries,
        "golden_max_difference": golden.max_difference,
        "golden_order_equal": golden.order_equal,
    }
    (folder / "latency.json").write_bytes(canonical_json(facts))
    return facts
