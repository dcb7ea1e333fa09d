"""The computations around a release: the bundle, and the gate's decision."""

from models.expectations.steps import EXPECTATIONS
from models.store import asset_names as names
from models.store.steps import Step

RELEASE_CANDIDATE = Step(
    names.RELEASE_CANDIDATE,
    "models.release.release_candidate:write_bundle",
    (
        "encoder",
        "index",
        "tiers",
        "generator.passages",
        "generator.max_sentences",
        "generator.answered_share",
        "evaluation",
        "serving.golden_queries",
        "training.max_tokens",
    ),
)
GATE_DECISION = Step(
    names.GATE_DECISION,
    "models.release.evidence:write_decision",
    ("gate", "objectives"),
    data_files=EXPECTATIONS.data_files,
)
