"""The champion as it serves, on the current evaluation set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.cross_encoder.pairwise import Progress
from models.serving.latency_profile import make_latency_profile
from models.serving.steps import CHAMPION_EVALUATION
from models.settings import Settings
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.durable_files import canonical_json, link_or_copy

if TYPE_CHECKING:
    from models.records.ledger import Release
    from models.store.artifacts import Artifact, ArtifactStore


def make_champion_evaluation(
    store: ArtifactStore,
    settings: Settings,
    champion: Release | None,
    evaluation_set: Artifact,
    progress: Progress | None = None,
) -> Artifact:
    """What the champion answers to the test queries; without a champion, that there is none.

    It answers by its own indexes, models and scores, under the code and the budget of now. What it answered as a
    candidate is taken again where nothing of that has changed.
    """
    profile = None
    if champion is not None:
        bundle = store.open(RELEASE_CANDIDATE, champion.bundle_version)
        profile = make_latency_profile(store, settings, bundle, evaluation_set, progress)
    outside = {
        "champion": champion.bundle_version if champion else "",
        "profile": profile.data_version if profile else "",
    }
    build = partial(evaluate_champion, champion.bundle_version if champion else None, profile)
    return CHAMPION_EVALUATION.get_or_create(store, settings, build, inputs=(evaluation_set,), outside=outside)


def evaluate_champion(version: str | None, profile: Artifact | None, folder: Path) -> dict[str, Any]:
    """Write champion.json and, with a champion, the per_query.parquet and latency.json of its profile."""
    (folder / "champion.json").write_bytes(canonical_json({"champion": version}))
    if profile is None:
        return {"champion": "none"}
    for name in ("per_query.parquet", "latency.json"):
        link_or_copy(profile.path(name), folder / name)
    return {"champion": version, "degraded_share": profile.summary["degraded_share"]}
