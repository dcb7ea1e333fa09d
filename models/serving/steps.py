"""The computation that serves a bundle as the service does: its latency profile."""

from models.store import asset_names as names
from models.store.steps import Step

LATENCY_PROFILE = Step(
    names.LATENCY_PROFILE,
    "models.serving.latency_profile:profile_bundle",
    (
        "gate.max_golden_difference", "tiers.budget_ms", "serving.candidates", "serving.threads",
        "serving.batch_tokens",
    ),
)  # fmt: skip
