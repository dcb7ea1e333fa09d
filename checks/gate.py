"""The gate as blocking checks on gate_decision: one per group of its rules, so that the UI shows which one refused."""

from collections.abc import Iterator

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result
from models.errors import ArtifactError
from models.release.gate import RULES, GateCheck, GateDecision

GROUPS = {rule.group: [of.name for of in RULES if of.group == rule.group] for rule in RULES}
"""Name of each check -> the gate's rules that it stands for."""


@dg.multi_asset_check(
    name="gate",
    specs=[
        dg.AssetCheckSpec(name, asset=keys.GATE_DECISION, blocking=True, description=f"Gate rules: {', '.join(rules)}.")
        for name, rules in GROUPS.items()
    ],
)
def gate(deployment: Deployment) -> Iterator[dg.AssetCheckResult]:
    """Read the decision and report each group; a decision `current` passes: the champion was judged when it was
    released."""
    from dataclasses import asdict

    from models.release.evidence import DECISION_FILE

    artifact = deployment.store().require(keys.artifact_name(keys.GATE_DECISION))
    decision = GateDecision.from_dict(artifact.read_json(DECISION_FILE))
    unknown = sorted({check.group for check in decision.checks} - set(GROUPS))
    if unknown:
        raise ArtifactError(
            f"the gate decided by rules that it no longer has: {', '.join(unknown)}",
            "Materialize release/gate_decision again.",
        )
    for name in GROUPS:
        judged = [check for check in decision.checks if check.group == name]
        refusing = [check for check in judged if check.refuses]
        result = check_result(
            decision.verdict == "current" or bool(judged and not refusing),
            _describe(judged),
            value=len(refusing),
            threshold=0,
            violations=len(refusing),
            judged=any(check.passed is not None for check in judged),
            examples=[asdict(check) for check in judged],
        )
        yield result._replace(check_name=name, asset_key=keys.GATE_DECISION)


def _describe(checks: list[GateCheck]) -> str:
    if not checks:
        return "The gate decided before it had these rules. Materialize release/gate_decision again."
    refusing = [check.message for check in checks if check.refuses]
    unjudged = list(dict.fromkeys(f"Not judged. {check.message}" for check in checks if check.passed is None))
    held = sum(check.passed is True for check in checks)
    return "; ".join(refusing or [*([f"{held} rules hold."] if held else []), *unjudged])


CHECKS = (gate,)
