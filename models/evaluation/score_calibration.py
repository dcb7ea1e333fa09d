"""The calibration as an artifact: how tiers combine scores and how far they look, fitted on the development queries."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.cascade.calibration import fit_calibration
from models.cascade.window_fitting import fit_early_exit
from models.evaluation.evaluation_set import split_of
from models.evaluation.scored_candidates import pair_costs
from models.evaluation.steps import SCORE_CALIBRATION
from models.settings import Settings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json


def make_score_calibration(
    store: ArtifactStore, settings: Settings, evaluation_set: Artifact, scored_candidates: Artifact
) -> Artifact:
    """The calibration of the models whose logits `scored_candidates` has."""
    inputs = (evaluation_set, scored_candidates)
    return SCORE_CALIBRATION.get_or_create(store, settings, partial(calibrate, *inputs, settings.tiers), inputs=inputs)


def calibrate(
    evaluation_set: Artifact, scored_candidates: Artifact, settings: TiersSettings, folder: Path
) -> dict[str, Any]:
    """Write calibration.json; return the expected calibration errors and what the windows cost and save."""
    dev, judgments = split_of(evaluation_set, "dev")
    scored = scored_candidates.read_table("scored.parquet")
    scored = scored.loc[scored["query_id"].isin(dev["query_id"])]
    calibration = fit_calibration(scored, judgments)
    fitted = fit_early_exit(scored, judgments, calibration, settings, pair_costs(scored_candidates))
    calibration = replace(calibration, early_exit=fitted.early_exit)
    (folder / "calibration.json").write_bytes(canonical_json(calibration.to_dict()))
    errors = {f"expected_calibration_error_{name}": e for name, e in calibration.expected_calibration_error.items()}
    return {"queries": calibration.queries, **errors, **fitted.summary()}
