"""The gate as blocking checks on gate_decision: one per rule, so that the UI shows which one refused."""

from collections.abc import Iterator

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result

RULES = {
    "contracts_hold": ("contract",),
    "significant_gain": ("gain",),
    "not_inferior_to_champion": ("champion", "same_evaluation_set"),
    "latency_within_objectives": ("p95", "p99"),
    "golden_scores_reproduced": ("golden",),
    "drift_within_limit": ("drift",),
    "not_rolled_back": ("rolled_back",),
}
"""Check name -> prefixes of the gate's own checks that it stands for."""


@dg.multi_asset_check(
    name="gate",
    specs=[
        dg.AssetCheckSpec(name, asset=keys.GATE_DECISION, blocking=True, description=f"Gate rules: {', '.join(rules)}.")
        for name, rules in RULES.items()
    ],
)
def gate(deployment: Deployment) -> Iterator[dg.AssetCheckResult]:
    """Read the decision and report each rule; a decision `current` passes: the champion was judged when it was
    released."""
    decision = deployment.store().require(keys.artifact_name(keys.GATE_DECISION)).read_json("decision.json")
    current = decision["verdict"] == "current"
    for name, prefixes in RULES.items():
        found = [check for check in decision["checks"] if check["name"].startswith(prefixes)]
        failed = [check for check in found if not check["passed"]]
        result = check_result(
            current or not failed,
            "; ".join(check["message"] for check in failed) or f"{len(found)} rules hold.",
            value=len(failed),
            threshold=0,
            violations=len(failed),
            examples=found,
        )
        yield result._replace(check_name=name, asset_key=keys.GATE_DECISION)


CHECKS = (gate,)
