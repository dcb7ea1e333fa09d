"""The checks on the gate's decision: each rule is shown by one of them, and by no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import keys
from assets.resources import Deployment
from checks.gate import gate
from models.release.gate import RULES, GateCheck, GateDecision, decide
from models.store.artifacts import Artifact
from models.store.durable_files import canonical_json
from tests.checks.check_cases import run_checks
from tests.deployments import shown, use_home, write_artifact
from tests.models.release.test_gate import BAD, BROKEN, CHAMPION, GAIN, MISSING, SERVED, SETTINGS, changed

CHECKS = {spec.name: spec for spec in gate.check_specs}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    return use_home(tmp_path, monkeypatch)


def checks_of(
    deployment: Deployment, decision: GateDecision
) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetCheckEvaluation]]:
    """What the checks say of a decision; evaluations by name."""
    content = canonical_json(decision.to_dict())

    def gate_decision(deployment: dg.ResourceParam[Deployment]) -> Artifact:
        return write_artifact(deployment.store(), "release/gate_decision", {}, {"decision.json": content})

    asset = dg.asset(gate_decision, key=keys.GATE_DECISION, io_manager_key="io_manager")
    return run_checks(deployment, [asset], [gate])


def test_every_rule_belongs_to_exactly_one_check_and_every_check_has_a_rule() -> None:
    assert len(CHECKS) == len([*gate.check_specs])
    assert set(CHECKS) == {rule.group for rule in RULES}
    for rule in RULES:
        listed = [
            name
            for name, spec in CHECKS.items()
            if rule.name in str(spec.description).strip(".").split(": ")[1].split(", ")
        ]
        assert listed == [rule.group], rule.name


@pytest.mark.parametrize("change", [{}, BAD, MISSING], ids=["good", "bad", "missing"])
def test_each_number_of_a_decision_is_shown_by_one_check(deployment: Deployment, change: dict[str, Any]) -> None:
    decision = decide(changed(change), SETTINGS)
    _, evaluations = checks_of(deployment, decision)
    assert set(evaluations) == set(CHECKS)
    for check in decision.checks:
        row = f"| {check.name} |"
        assert [name for name, result in evaluations.items() if row in shown(result)["examples"]] == [check.group]


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"contracts": {"passages:contract": BROKEN}}, "contracts_hold"),
        ({"blocking_checks": {"queries:splits": BROKEN}}, "blocking_checks_hold"),
        ({"gain": replace(GAIN, difference=0.0)}, "significant_gain"),
        ({"gain": replace(GAIN, p_gain=0.9)}, "significant_gain"),
        ({"served_gain": replace(SERVED, difference=0.0)}, "holds_under_budget"),
        ({"degraded_share": 0.75}, "holds_under_budget"),
        ({"same_evaluation_set": False}, "not_inferior_to_champion"),
        ({"champion": replace(CHAMPION, low=-0.5)}, "not_inferior_to_champion"),
        ({"p95_ms": 9000.0}, "latency_within_objectives"),
        ({"p99_ms": 9000.0}, "latency_within_objectives"),
        ({"golden_max_difference": 1.0}, "golden_scores_reproduced"),
        ({"golden_order_equal": False}, "golden_scores_reproduced"),
        ({"drift_share": 0.9}, "drift_within_limit"),
        ({"rolled_back": True}, "not_rolled_back"),
    ],
)
def test_a_rule_that_refuses_fails_its_check_alone(
    deployment: Deployment, change: dict[str, Any], failing: str
) -> None:
    decision = decide(changed(change), SETTINGS)
    result, evaluations = checks_of(deployment, decision)
    assert not result.success
    assert [name for name, result in evaluations.items() if not result.passed] == [failing]
    assert evaluations[failing].description == "; ".join(decision.reasons)
    assert shown(evaluations[failing])["violations"] == 1


def test_a_check_of_which_nothing_was_judged_says_so(deployment: Deployment) -> None:
    first = {"champion": None, "champion_version": None, "drift_share": None}
    result, evaluations = checks_of(deployment, decide(changed(first), SETTINGS))
    assert result.success
    judged = {name: shown(result)["judged"] for name, result in evaluations.items()}
    assert [name for name, whether in judged.items() if not whether] == [
        "not_inferior_to_champion",
        "drift_within_limit",
    ]
    assert evaluations["not_inferior_to_champion"].description == (
        "Not judged. No champion yet: nothing to lose against."
    )
    of_latency = [rule for rule in RULES if rule.group == "latency_within_objectives"]
    assert evaluations["latency_within_objectives"].description == f"{len(of_latency)} rules hold."


def test_the_champion_passes_whatever_is_asked_of_it_now(deployment: Deployment) -> None:
    decision = decide(changed({"candidate_is_champion": True, "p95_ms": None}), SETTINGS)
    result, evaluations = checks_of(deployment, decision)
    assert result.success
    assert "was not measured" in str(evaluations["latency_within_objectives"].description)


def test_a_decision_by_other_rules_does_not_pass(deployment: Deployment) -> None:
    decision = decide(changed({}), SETTINGS)
    fewer = replace(decision, checks=tuple(check for check in decision.checks if check.group != "not_rolled_back"))
    result, evaluations = checks_of(deployment, fewer)
    assert not result.success
    assert [name for name, result in evaluations.items() if not result.passed] == ["not_rolled_back"]
    assert "before it had these rules" in str(evaluations["not_rolled_back"].description)

    strange = GateCheck("beauty", "beautiful", True, 1.0, 0.5, ">=", "It is.")
    result, evaluations = checks_of(deployment, replace(decision, checks=(*decision.checks, strange)))
    assert not result.success
    assert evaluations == {}
