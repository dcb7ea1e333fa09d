"""The computations around a release: the bundle, the champion's numbers, and the gate's decision."""

from models.evaluation.steps import RESAMPLING
from models.store import asset_names as names
from models.store.steps import Step

RELEASE_CANDIDATE = Step(
    names.RELEASE_CANDIDATE,
    "models.release.release_candidate:write_bundle",
    ("encoder", "index", "tiers", "generator", "evaluation", "serving.golden_queries", "training.max_tokens"),
)
CHAMPION_EVALUATION = Step(names.CHAMPION_EVALUATION, "models.release.champion:evaluate_champion", RESAMPLING)
GATE_DECISION = Step(names.GATE_DECISION, "models.release.evidence:write_decision", ("gate", "objectives"))
