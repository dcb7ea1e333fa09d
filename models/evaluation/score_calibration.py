"""The calibration as an artifact: how tiers combine scores and how far they look, fitted on the development queries."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from models.cascade.answer_threshold import fit_answer_thresholds
from models.cascade.calibration import fit_calibration
from models.cascade.model_gain import cross_fitted_gain
from models.cascade.window_fitting import fit_early_exit
from models.cascade.windows import EarlyExit
from models.evaluation.evaluation_set import split_of
from models.evaluation.scored_candidates import pair_costs
from models.evaluation.steps import SCORE_CALIBRATION
from models.settings import GeneratorSettings, Settings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json


def make_score_calibration(
    store: ArtifactStore, settings: Settings, evaluation_set: Artifact, scored_candidates: Artifact
) -> Artifact:
    """The calibration of the models whose logits `scored_candidates` has."""
    inputs = (evaluation_set, scored_candidates)
    build = partial(calibrate, *inputs, settings.tiers, settings.generator)
    return SCORE_CALIBRATION.get_or_create(store, settings, build, inputs=inputs)


def calibrate(
    evaluation_set: Artifact,
    scored_candidates: Artifact,
    settings: TiersSettings,
    generator: GeneratorSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write calibration.json; return the expected calibration errors, what the windows cost and save, what the models
    add on the development queries (`models.cascade.model_gain`), and what the answer thresholds refuse.

    Where that is nothing, no model is asked, unless `tiers.lean_alone` says never.
    """
    dev, judgments = split_of(evaluation_set, "dev")
    scored = scored_candidates.read_table("scored.parquet")
    scored = scored.loc[scored["query_id"].isin(dev["query_id"])]
    calibration = fit_calibration(scored, judgments)
    gain = cross_fitted_gain(scored, judgments, settings)
    alone = settings.lean_alone == "auto" and gain is not None and gain <= 0
    early_exit, outcome = EarlyExit.lean_alone(), dict[str, float]()
    if not alone:
        fitted = fit_early_exit(scored, judgments, calibration, settings, pair_costs(scored_candidates))
        early_exit, outcome = fitted.early_exit, fitted.summary()
    thresholds = fit_answer_thresholds(scored, judgments, calibration, generator.answered_share)
    calibration = replace(calibration, early_exit=early_exit, answer_thresholds=thresholds)
    (folder / "calibration.json").write_bytes(canonical_json(calibration.to_dict()))
    errors = {f"expected_calibration_error_{name}": e for name, e in calibration.expected_calibration_error.items()}
    return {
        "queries": calibration.queries,
        "lean_alone": alone,
        **({} if gain is None else {"ndcg_at_10_gain_over_lean": gain}),
        **errors,
        **{f"answer_threshold_{name}": one.score for name, one in thresholds.items()},
        **{f"refused_without_relevant_{name}": one.refused for name, one in thresholds.items()},
        **outcome,
    }
