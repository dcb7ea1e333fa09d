"""The computations that serve bundles as the service does: the candidate's, and the champion's."""

from models.store import asset_names as names
from models.store.steps import Step

_SERVED_WITH = (
    "gate.max_golden_difference", "tiers.budget_ms", "serving.candidates", "serving.threads", "serving.batch_tokens",
)  # fmt: skip

LATENCY_PROFILE = Step(
    names.LATENCY_PROFILE,
    "models.serving.latency_profile:profile_bundle",
    _SERVED_WITH,
)
# Its settings are those of the profile, so that the gate compares no two bundles that served with different ones.
CHAMPION_EVALUATION = Step(names.CHAMPION_EVALUATION, "models.serving.champion:evaluate_champion", _SERVED_WITH)
