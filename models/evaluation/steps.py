"""The computations of the offline evaluation on stored artifacts."""

from models.contracts.tiers import MODEL_TIERS
from models.store import asset_names as names
from models.store.steps import Step

RESAMPLING = ("evaluation.resamples", "evaluation.confidence")

SCORED_CANDIDATES = Step(names.SCORED_CANDIDATES, "models.evaluation.scored_candidates:score", ("training.max_tokens",))
SCORE_CALIBRATION = Step(
    names.SCORE_CALIBRATION,
    "models.evaluation.score_calibration:calibrate",
    ("tiers", "generator.answered_share"),
    without=("tiers.budget_ms", "tiers.reserve_ms"),
)
OFFLINE_EVALUATION = Step(
    names.OFFLINE_EVALUATION,
    "models.evaluation.offline:evaluate_offline",
    (*RESAMPLING, *(tier.candidates_setting for tier in MODEL_TIERS)),
    data_files=("evaluation/templates/evaluation.html",),
)
