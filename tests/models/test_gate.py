from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation import Comparison
from models.files import canonical_json
from models.gate import GateDecision, GateEvidence, decide
from models.settings import GateSettings, ObjectivesSettings

POLICY = GateSettings(
    min_gain=0.01, max_p_value=0.05, max_champion_loss=0.02, max_drift_share=0.5, max_golden_difference=1e-3
)
OBJECTIVES = ObjectivesSettings(p95_ms=1500, p99_ms=2500)
NAN, INF = float("nan"), float("inf")

GAIN = Comparison(
    candidate="tiered", baseline="hybrid", measure="nDCG@10", queries=300, candidate_mean=0.68, baseline_mean=0.6,
    difference=0.08, low=0.05, high=0.11, p_value=0.0001, improved=120, hurt=40, same=140, detectable=0.03,
)  # fmt: skip
CHAMPION = replace(
    GAIN, candidate="candidate", baseline="champion", difference=0.005, low=-0.01, high=0.02, p_value=0.6
)
GOOD = GateEvidence(
    contracts_hold={"passages": True, "judgments": True},
    gain=GAIN,
    champion=CHAMPION,
    champion_version="3",
    evaluation_set_version="set-1",
    same_evaluation_set=True,
    p95_ms=800.0,
    p99_ms=1100.0,
    golden_max_difference=1e-6,
    golden_order_equal=True,
    drift_share=0.1,
    rolled_back=False,
    candidate_is_champion=False,
)


def failing(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def test_good_evidence_is_released_with_every_number_behind_it() -> None:
    decision = decide(GOOD, POLICY, OBJECTIVES)

    assert decision.verdict == "released"
    assert decision.reasons == ()
    assert {check.name: (check.value, check.comparison, check.threshold) for check in decision.checks} == {
        "contract:judgments": (True, "==", True),
        "contract:passages": (True, "==", True),
        "gain": (0.08, ">=", 0.01),
        "gain_p_value": (0.0001, "<=", 0.05),
        "same_evaluation_set": (True, "==", True),
        "champion_loss": (-0.01, ">=", -0.02),
        "p95_ms": (800.0, "<=", 1500.0),
        "p99_ms": (1100.0, "<=", 2500.0),
        "golden_difference": (1e-6, "<=", 1e-3),
        "golden_order": (True, "==", True),
        "drift_share": (0.1, "<=", 0.5),
        "rolled_back": (False, "==", False),
    }
    assert all(check.message for check in decision.checks)


@pytest.mark.parametrize(
    ("change", "name", "advice"),
    [
        ({"contracts_hold": {"passages": True, "judgments": False}}, "contract:judgments", "run again"),
        ({"contracts_hold": {}}, "contracts", "Run the checks"),
        ({"gain": replace(GAIN, difference=0.0099)}, "gain", "min_gain"),
        ({"gain": replace(GAIN, difference=-0.2)}, "gain", "min_gain"),
        ({"gain": replace(GAIN, p_value=0.0501)}, "gain_p_value", "from 0.03 up"),
        ({"champion": replace(CHAMPION, low=-0.0201)}, "champion_loss", "keep the champion"),
        ({"champion": None}, "champion_loss", "was not measured"),
        ({"same_evaluation_set": False}, "same_evaluation_set", "Evaluate the champion"),
        ({"p95_ms": 1500.1}, "p95_ms", "objectives.p95_ms"),
        ({"p99_ms": 2500.1}, "p99_ms", "objectives.p99_ms"),
        ({"golden_max_difference": 0.0011}, "golden_difference", "Build the bundle again"),
        ({"golden_order_equal": False}, "golden_order", "Build the bundle again"),
        ({"drift_share": 0.51}, "drift_share", "retrain"),
        ({"rolled_back": True}, "rolled_back", "allow_rolled_back"),
        ({"gain": replace(GAIN, difference=NAN)}, "gain", "not a finite number"),
        ({"gain": replace(GAIN, p_value=NAN)}, "gain_p_value", "not a finite number"),
        ({"champion": replace(CHAMPION, low=NAN)}, "champion_loss", "not a finite number"),
        ({"p95_ms": None}, "p95_ms", "was not measured"),
        ({"p95_ms": NAN}, "p95_ms", "not a finite number"),
        ({"p99_ms": INF}, "p99_ms", "not a finite number"),
        ({"p99_ms": -INF}, "p99_ms", "not a finite number"),
        ({"golden_max_difference": None}, "golden_difference", "was not measured"),
        ({"golden_max_difference": NAN}, "golden_difference", "not a finite number"),
        ({"drift_share": NAN}, "drift_share", "not a finite number"),
    ],
)
def test_each_rule_refuses_alone_and_says_what_to_do(change: dict[str, Any], name: str, advice: str) -> None:
    decision = decide(replace(GOOD, **change), POLICY, OBJECTIVES)

    assert decision.verdict == "refused"
    assert failing(decision) == [name]
    assert len(decision.reasons) == 1
    assert advice in decision.reasons[0]


def test_a_gain_that_was_not_measured_refuses() -> None:
    decision = decide(replace(GOOD, gain=None), POLICY, OBJECTIVES)

    assert (decision.verdict, failing(decision)) == ("refused", ["gain", "gain_p_value"])


@pytest.mark.parametrize(
    "change",
    [
        {"gain": replace(GAIN, difference=0.01)},
        {"gain": replace(GAIN, p_value=0.05)},
        {"champion": replace(CHAMPION, low=-0.02)},
        {"p95_ms": 1500.0},
        {"p99_ms": 2500.0},
        {"golden_max_difference": 1e-3},
        {"drift_share": 0.5},
        {"drift_share": None},
        {"drift_share": 0},
    ],
)
def test_a_value_on_its_threshold_passes(change: dict[str, Any]) -> None:
    assert decide(replace(GOOD, **change), POLICY, OBJECTIVES).verdict == "released"


def test_the_first_release_has_no_champion_to_lose_against() -> None:
    first = replace(GOOD, champion=None, champion_version=None, same_evaluation_set=False)
    decision = decide(first, POLICY, OBJECTIVES)

    assert decision.verdict == "released"
    assert next(check for check in decision.checks if check.name == "champion_loss").value is None


def test_a_rolled_back_bundle_is_released_where_the_settings_allow_it() -> None:
    policy = POLICY.model_copy(update={"allow_rolled_back": True})

    assert decide(replace(GOOD, rolled_back=True), policy, OBJECTIVES).verdict == "released"


def test_the_champion_itself_is_current_and_not_refused_again() -> None:
    evidence = replace(GOOD, candidate_is_champion=True, gain=replace(GAIN, p_value=0.9), p95_ms=None)
    decision = decide(evidence, POLICY, OBJECTIVES)

    assert decision.verdict == "current"
    assert decision.reasons == ()
    assert failing(decision) == ["gain_p_value", "p95_ms"]


def test_all_failures_are_reported_at_once() -> None:
    decision = decide(replace(GOOD, p95_ms=9000.0, drift_share=0.9, rolled_back=True), POLICY, OBJECTIVES)

    assert failing(decision) == ["p95_ms", "drift_share", "rolled_back"]
    assert len(decision.reasons) == 3


@pytest.mark.parametrize("evidence", [GOOD, replace(GOOD, gain=replace(GAIN, difference=NAN), p95_ms=INF)])
def test_a_decision_survives_json(evidence: GateEvidence) -> None:
    decision = decide(evidence, POLICY, OBJECTIVES)
    values = json.loads(canonical_json(decision.to_dict()))

    assert GateDecision.from_dict(values) == decision
    assert values["reasons"] == list(decision.reasons)


NUMBERS = st.one_of(st.none(), st.just(NAN), st.just(INF), st.floats(0, 3000))
SMALL = st.one_of(st.just(NAN), st.floats(-0.1, 0.1))
COMPARISONS = st.one_of(
    st.none(),
    st.builds(lambda d, low, p: replace(GAIN, difference=d, low=low, p_value=p), SMALL, SMALL, st.floats(0, 0.1)),
)
# Mostly good evidence with some fields drawn anew: each verdict is reached often.
EVIDENCE = st.fixed_dictionaries(
    {},
    optional={
        "contracts_hold": st.dictionaries(st.sampled_from(["passages", "queries"]), st.booleans()),
        "gain": COMPARISONS,
        "champion": COMPARISONS,
        "champion_version": st.one_of(st.none(), st.just("3")),
        "same_evaluation_set": st.booleans(),
        "p95_ms": NUMBERS,
        "p99_ms": NUMBERS,
        "golden_max_difference": st.one_of(st.none(), SMALL),
        "golden_order_equal": st.booleans(),
        "drift_share": st.one_of(st.none(), st.just(NAN), st.floats(0, 1)),
        "rolled_back": st.booleans(),
        "candidate_is_champion": st.booleans(),
    },
).map(lambda changes: replace(GOOD, **changes))


def should_release(evidence: GateEvidence) -> bool:
    """The rules, written out a second time; comparisons with NaN are false."""
    first = evidence.champion_version is None and evidence.champion is None
    keeps_up = first or (
        evidence.champion is not None and evidence.champion.low >= -0.02 and evidence.same_evaluation_set
    )
    return (
        bool(evidence.contracts_hold)
        and all(evidence.contracts_hold.values())
        and evidence.gain is not None
        and evidence.gain.difference >= 0.01
        and evidence.gain.p_value <= 0.05
        and keeps_up
        and evidence.p95_ms is not None
        and evidence.p95_ms <= 1500
        and evidence.p99_ms is not None
        and evidence.p99_ms <= 2500
        and evidence.golden_max_difference is not None
        and evidence.golden_max_difference <= 1e-3
        and evidence.golden_order_equal
        and (evidence.drift_share is None or evidence.drift_share <= 0.5)
        and not evidence.rolled_back
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EVIDENCE)
def test_nothing_is_released_with_a_failing_check(evidence: GateEvidence) -> None:
    decision = decide(evidence, POLICY, OBJECTIVES)

    expected = "current" if evidence.candidate_is_champion else "released" if should_release(evidence) else "refused"
    assert decision.verdict == expected
    assert not (decision.verdict == "released" and failing(decision))
    assert bool(decision.reasons) == (decision.verdict == "refused")
    assert GateDecision.from_dict(json.loads(canonical_json(decision.to_dict()))) == decision
