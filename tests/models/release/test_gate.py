from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.report import Comparison
from models.release.blocking_checks import Finding
from models.release.gate import RULES, GateDecision, GateEvidence, LatencyProfile, decide, refusals
from models.settings import GateSettings, ObjectivesSettings, Settings
from models.store.durable_files import canonical_json

SETTINGS = Settings(
    gate=GateSettings(
        min_gain=0.01,
        max_p_value=0.05,
        max_degraded_share=0.1,
        max_champion_loss=0.02,
        max_drift_share=0.5,
        max_golden_difference=1e-3,
    ),
    objectives=ObjectivesSettings(p95_ms=1500, p99_ms=2500),
)
NAN, INF = float("nan"), float("inf")

GAIN = Comparison(
    candidate="tiered", baseline="lean", measure="nDCG@10", queries=300, candidate_mean=0.68, baseline_mean=0.6,
    difference=0.08, low=0.05, high=0.11, p_value=0.0001, p_gain=0.0001, improved=120, hurt=40, same=140,
    detectable=0.03, standard_error=0.01,
)  # fmt: skip
SERVED = replace(GAIN, candidate="served", difference=0.07, low=0.04, high=0.1)
CHAMPION = replace(
    GAIN, candidate="candidate", baseline="champion", difference=0.005, low=-0.01, high=0.02, p_value=0.6, p_gain=0.3
)
HOLDS = Finding(passed=True, description="0 rows break it.")
BROKEN = Finding(passed=False, description="3 rows break it.", advice="Correct the source and run again.")
GOOD = GateEvidence(
    contracts={"passages:contract": HOLDS, "judgments:contract": HOLDS},
    blocking_checks={"queries:splits": HOLDS},
    gain=GAIN,
    served_gain=SERVED,
    champion=CHAMPION,
    champion_version="3",
    evaluation_set_version="set-1",
    same_evaluation_set=True,
    lean_alone=False,
    latency=LatencyProfile(
        p50_ms=600.0,
        p95_ms=800.0,
        p99_ms=1100.0,
        mean_ms=650.0,
        n=60,
        degraded_share=0.0,
        load_seconds=2.0,
        golden_queries=10,
        golden_max_difference=1e-6,
        golden_order_equal=True,
    ),
    drift_share=0.1,
    rolled_back=False,
    candidate_is_champion=False,
    judged_before=0,
)


PROFILED = {field.name for field in fields(LatencyProfile)}


def changed(change: dict[str, Any]) -> GateEvidence:
    """Good evidence with some of its fields, or of those of its latency profile, replaced."""
    latency = {name: value for name, value in change.items() if name in PROFILED}
    rest = {name: value for name, value in change.items() if name not in PROFILED}
    return replace(GOOD, latency=replace(GOOD.latency, **latency), **rest)


def failing(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if check.refuses]


def not_judged(decision: GateDecision) -> list[str]:
    return [check.name for check in decision.checks if check.passed is None]


def test_good_evidence_is_released_with_every_number_behind_it() -> None:
    decision = decide(GOOD, SETTINGS)

    assert decision.verdict == "released"
    assert decision.reasons == ()
    assert {check.name: (check.value, check.comparison, check.threshold) for check in decision.checks} == {
        "judgments:contract": (True, "==", True),
        "passages:contract": (True, "==", True),
        "queries:splits": (True, "==", True),
        "gain": (0.08, ">=", 0.01),
        "gain_p_value": (0.0001, "<=", 0.05),
        "served_gain": (0.07, ">=", 0.01),
        "degraded_share": (0.0, "<=", 0.1),
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
        ({"contracts": {"passages:contract": HOLDS, "judgments:contract": BROKEN}}, "judgments:contract", "run again"),
        ({"contracts": {}}, "contracts", "rerankops run"),
        ({"blocking_checks": {"queries:splits": BROKEN}}, "queries:splits", "3 rows break it. Correct the source"),
        ({"blocking_checks": {}}, "blocking_checks", "rerankops run"),
        ({"gain": replace(GAIN, difference=0.0099)}, "gain", "min_gain"),
        ({"gain": replace(GAIN, difference=-0.2)}, "gain", "min_gain"),
        ({"gain": replace(GAIN, p_gain=0.0501)}, "gain_p_value", "from 0.03 up"),
        ({"served_gain": replace(SERVED, difference=0.0099)}, "served_gain", "tiers.budget_ms"),
        ({"served_gain": None}, "served_gain", "was not measured"),
        ({"degraded_share": 0.11}, "degraded_share", "tiers.budget_ms"),
        ({"degraded_share": None}, "degraded_share", "was not measured"),
        ({"degraded_share": NAN}, "degraded_share", "not a finite number"),
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
        ({"gain": replace(GAIN, p_gain=NAN)}, "gain_p_value", "not a finite number"),
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
    decision = decide(changed(change), SETTINGS)

    assert decision.verdict == "refused"
    assert failing(decision) == [name]
    assert len(decision.reasons) == 1
    assert advice in decision.reasons[0]


def test_lean_alone_is_released_unless_another_first_stage_is_better() -> None:
    """It gains nothing over itself: what is asked is that the development queries have not chosen a worse one."""
    itself = replace(GAIN, candidate_mean=0.6, difference=0.0, low=0.0, high=0.0, p_value=1.0, p_gain=1.0)
    lean = {"lean_alone": True, "gain": itself, "served_gain": itself}
    decision = decide(changed(lean), SETTINGS)
    assert decision.verdict == "released"
    assert not_judged(decision) == ["gain", "gain_p_value", "served_gain"]
    assert "The release serves lean alone" in decision.to_dict()["checks"][3]["message"]

    worse = replace(GAIN, baseline="dense", difference=-0.03, low=-0.05, high=-0.01)
    refused = decide(changed({**lean, "gain": worse}), SETTINGS)
    assert failing(refused) == ["lean_loss"]
    assert "index.fusion" in refused.reasons[0]
    assert failing(decide(changed({**lean, "gain": None}), SETTINGS)) == ["lean_loss"]
    assert failing(decide(changed({**lean, "gain": replace(itself, high=NAN)}), SETTINGS)) == ["lean_loss"]
    by_chance = replace(worse, high=0.004)
    assert decide(changed({**lean, "gain": by_chance}), SETTINGS).verdict == "released"


BAD = {
    "contracts": {"passages:contract": BROKEN},
    "blocking_checks": {"queries:splits": BROKEN},
    "gain": replace(GAIN, difference=0.001, p_gain=0.5),
    "served_gain": replace(SERVED, difference=-0.01),
    "degraded_share": 0.75,
    "champion": replace(CHAMPION, low=-0.2),
    "same_evaluation_set": False,
    "p95_ms": 3000.0,
    "p99_ms": 3000.0,
    "golden_max_difference": 0.5,
    "golden_order_equal": False,
    "drift_share": 0.9,
    "rolled_back": True,
}
MISSING = {
    "contracts": {}, "blocking_checks": {}, "gain": None, "served_gain": None, "degraded_share": None, "champion": None,
    "champion_version": None, "p95_ms": None, "p99_ms": None,
    "golden_max_difference": None, "golden_order_equal": None, "drift_share": None,
}  # fmt: skip
OTHER_ORDER = "The reloaded bundle ranks the golden queries in another order. Build the bundle again."
UNMEASURED = "was not measured. Run the evaluation and the latency profile again; without it nothing is released."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {},
            {
                "judgments:contract": "judgments:contract: 0 rows break it.",
                "passages:contract": "passages:contract: 0 rows break it.",
                "queries:splits": "queries:splits: 0 rows break it.",
                "gain": "nDCG@10 gained by tiered over lean: 0.08 [0.05, 0.11] on 300 queries (120 improved, 40 hurt,"
                " 140 same); at least 0.01 is asked.",
                "gain_p_value": "p value of no gain, one-sided paired randomization test: 0.0001; at most 0.05 is"
                " asked.",
                "served_gain": "nDCG@10 gained by served over lean: 0.07 [0.04, 0.1] on 300 queries (120 improved,"
                " 40 hurt, 140 same); at least 0.01 is asked.",
                "degraded_share": "Share of requests that ran into tiers.budget_ms: 0 of 60; at most 0.1 is asked.",
                "same_evaluation_set": "Candidate and champion were judged on evaluation set set-1.",
                "champion_loss": "Lower end of candidate minus champion 3: -0.01; mean 0.005 on 300 queries;"
                " at least -0.02 is asked.",
                "p95_ms": "95th percentile of a rerank request, ms: 800; at most 1500 is asked.",
                "p99_ms": "99th percentile of a rerank request, ms: 1100; at most 2500 is asked.",
                "golden_difference": "Largest difference of a golden score after reloading the bundle: 1e-06;"
                " at most 0.001 is asked.",
                "golden_order": "The reloaded bundle ranks the golden queries as recorded.",
                "drift_share": "Share of drifted columns in the latest report: 0.1; at most 0.5 is asked.",
                "rolled_back": "This bundle was never rolled back.",
            },
        ),
        (
            BAD,
            {
                "passages:contract": "passages:contract: 3 rows break it. Correct the source and run again.",
                "queries:splits": "queries:splits: 3 rows break it. Correct the source and run again.",
                "gain": "nDCG@10 gained by tiered over lean: 0.001 [0.05, 0.11] on 300 queries (120 improved, 40"
                " hurt, 140 same); at least 0.01 is asked. The models add too little to what serves without them:"
                " train on more or better examples, or lower gate.min_gain. With these queries the rule lets a true"
                " gain of 0.02 through 84% of the time.",
                "gain_p_value": "p value of no gain, one-sided paired randomization test: 0.5; at most 0.05 is asked."
                " It may be chance: evaluate on more queries (evaluation.max_test_queries) or improve the model. This"
                " many queries show a difference from 0.03 up. With these queries the rule lets a true gain of 0.02"
                " through 64% of the time; 464 queries make it 80 %.",
                "served_gain": "nDCG@10 gained by served over lean: -0.01 [0.04, 0.1] on 300 queries (120 improved,"
                " 40 hurt, 140 same); at least 0.01 is asked. What is served inside tiers.budget_ms adds too little:"
                " raise the budget, or lower tiers.large_candidates. With these queries the rule lets a true gain of"
                " 0.02 through 84% of the time.",
                "degraded_share": "Share of requests that ran into tiers.budget_ms: 0.75 of 60; at most 0.1 is asked."
                " Raise tiers.budget_ms, lower tiers.large_candidates or tiers.early_exit_budget, or serve on a faster"
                " machine. With these queries the rule lets a bundle with a true share of 0.05 through 97% of the"
                " time.",
                "same_evaluation_set": "Champion 3 was not judged on evaluation set set-1. Evaluate the champion on it,"
                " so that both answer the same queries.",
                "champion_loss": "Lower end of candidate minus champion 3: -0.2; mean 0.005 on 300 queries; at least"
                " -0.02 is asked. The candidate may be worse than what is serving: keep the champion, evaluate on more"
                " queries, or raise gate.max_champion_loss. With these queries the rule lets a candidate exactly as"
                " good as the champion through 52% of the time; 589 queries make it 80 %.",
                "p95_ms": "95th percentile of a rerank request, ms: 3000; at most 1500 is asked. Lower"
                " tiers.large_candidates, or raise objectives.p95_ms.",
                "p99_ms": "99th percentile of a rerank request, ms: 3000; at most 2500 is asked. Lower"
                " tiers.large_candidates, or raise objectives.p99_ms.",
                "golden_difference": "Largest difference of a golden score after reloading the bundle: 0.5; at most"
                " 0.001 is asked. Build the bundle again: its files or its libraries differ from those that were"
                " evaluated.",
                "golden_order": OTHER_ORDER,
                "drift_share": "Share of drifted columns in the latest report: 0.9; at most 0.5 is asked. Traffic has"
                " moved away from what was evaluated: look at the drift report, then retrain.",
                "rolled_back": "This bundle was rolled back before. Train a new one, or set gate.allow_rolled_back to"
                " release it again.",
            },
        ),
        (
            MISSING,
            {
                "contracts": "No data contract was checked. Run `rerankops run`.",
                "blocking_checks": "No blocking check was made. Run `rerankops run`.",
                "gain": f"nDCG@10 gained over the best system without a model {UNMEASURED}",
                "gain_p_value": f"p value of no gain, one-sided paired randomization test {UNMEASURED}",
                "served_gain": f"nDCG@10 gained by the answers of the loaded bundle {UNMEASURED}",
                "degraded_share": f"Share of requests that ran into tiers.budget_ms {UNMEASURED}",
                "same_evaluation_set": "No champion yet: nothing to lose against.",
                "champion_loss": "No champion yet: nothing to lose against.",
                "p95_ms": f"95th percentile of a rerank request, ms {UNMEASURED}",
                "p99_ms": f"99th percentile of a rerank request, ms {UNMEASURED}",
                "golden_difference": f"Largest difference of a golden score after reloading the bundle {UNMEASURED}",
                "golden_order": OTHER_ORDER,
                "drift_share": "No drift report yet: there were too few decisions to judge.",
                "rolled_back": "This bundle was never rolled back.",
            },
        ),
    ],
    ids=["good", "bad", "missing"],
)
def test_each_rule_says_what_it_saw(change: dict[str, Any], said: dict[str, str]) -> None:
    decision = decide(changed(change), SETTINGS)

    assert {check.name: check.message for check in decision.checks} == said


def test_every_rule_can_refuse_and_has_a_name_of_its_own() -> None:
    alone = {**BAD, "lean_alone": True, "gain": replace(GAIN, high=-0.01)}
    judged = [(rule.name, rule.judge(changed(bad), SETTINGS)) for rule in RULES for bad in (BAD, alone)]
    refusing = {name for name, checks in judged if checks and all(check.refuses for check in checks)}
    names = [rule.name for rule in RULES]

    assert refusing == set(names)
    assert len(names) == len(refusing)


@pytest.mark.parametrize(
    ("change", "recorded", "said"),
    [
        ({}, {"candidate": "b1", "verdict": "released"}, []),
        ({"candidate_is_champion": True}, {"candidate": "b1", "verdict": "current"}, []),
        ({"rolled_back": True}, {"candidate": "b1", "verdict": "released"}, ["was rolled back before"]),
        ({"rolled_back": True}, {"candidate": "b1", "verdict": "refused"}, ["was rolled back before"]),
        ({}, {"candidate": "b1", "verdict": "refused"}, ["The recorded decision is a refusal"]),
        ({}, {"candidate": "b0", "verdict": "released"}, ["decided on another candidate"]),
        ({"rolled_back": True}, {"candidate": "b0", "verdict": "refused"}, ["was rolled back", "another candidate"]),
    ],
)
def test_what_was_decided_and_what_holds_now_must_both_let_a_candidate_through(
    change: dict[str, Any], recorded: dict[str, str], said: list[str]
) -> None:
    reasons = refusals(decide(changed(change), SETTINGS), recorded, "b1")

    assert len(reasons) == len(said)
    assert all(words in reason for words, reason in zip(said, reasons, strict=True))


def test_a_significant_loss_is_no_significant_gain() -> None:
    loss = replace(GAIN, difference=-0.016, low=-0.025, high=-0.007, p_value=0.0007, p_gain=0.9997)
    decision = decide(changed({"gain": loss}), SETTINGS)

    assert failing(decision) == ["gain", "gain_p_value"]


def test_the_power_of_a_rule_is_kept_with_what_it_said() -> None:
    checks = {check.name: check for check in decide(GOOD, SETTINGS).checks}

    # Phi(.02 / .01 - 1.96): the champion's margin over the standard error, less the quantile of the interval.
    assert checks["champion_loss"].power == pytest.approx(0.516, abs=1e-3)
    assert checks["champion_loss"].power_of == "a candidate exactly as good as the champion"
    assert checks["gain"].power == pytest.approx(0.841, abs=1e-3), "Phi(.01 / .01)"
    assert checks["p95_ms"].power is None
    assert "| champion_loss | -0.01 | >= -0.02 | passed | 52% for a candidate" in decide(GOOD, SETTINGS).to_markdown()


def test_a_gain_is_shown_beside_what_the_best_of_as_many_candidates_shows_by_chance() -> None:
    decision = decide(changed({"judged_before": 4}), SETTINGS)

    said = next(check.message for check in decision.checks if check.name == "gain")
    # The expected maximum of five standard normal values is 1.163.
    assert "; of 5 candidates judged on these queries the best shows 0.01163 by chance" in said
    assert GateDecision.from_dict(decision.to_dict()).judged_before == 4


def test_a_gain_on_pseudo_queries_is_called_so() -> None:
    def said(evidence: GateEvidence) -> str:
        return next(check.message for check in decide(evidence, SETTINGS).checks if check.name == "gain")

    assert "judged on pseudo-queries only" in said(replace(GOOD, pseudo_only=True))
    assert "pseudo" not in said(GOOD)


def test_a_gain_that_was_not_measured_refuses() -> None:
    decision = decide(replace(GOOD, gain=None), SETTINGS)

    assert (decision.verdict, failing(decision)) == ("refused", ["gain", "gain_p_value"])


@pytest.mark.parametrize(
    "change",
    [
        {"gain": replace(GAIN, difference=0.01)},
        {"gain": replace(GAIN, p_gain=0.05)},
        {"served_gain": replace(SERVED, difference=0.01)},
        {"degraded_share": 0.1},
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
    assert decide(changed(change), SETTINGS).verdict == "released"


def test_the_first_release_has_no_champion_to_lose_against() -> None:
    first = replace(GOOD, champion=None, champion_version=None, same_evaluation_set=False)
    decision = decide(first, SETTINGS)

    assert decision.verdict == "released"
    assert next(check for check in decision.checks if check.name == "champion_loss").value is None
    assert not_judged(decision) == ["same_evaluation_set", "champion_loss"]


def test_a_rule_with_nothing_to_judge_neither_passes_nor_refuses() -> None:
    decision = decide(replace(GOOD, drift_share=None), SETTINGS)

    assert (decision.verdict, failing(decision), not_judged(decision)) == ("released", [], ["drift_share"])
    assert "| drift_share | None | <= 0.5 | not judged |  |" in decision.to_markdown().splitlines()
    assert not_judged(decide(GOOD, SETTINGS)) == []


def test_a_rolled_back_bundle_is_released_where_the_settings_allow_it() -> None:
    gate = SETTINGS.gate.model_copy(update={"allow_rolled_back": True})
    decision = decide(replace(GOOD, rolled_back=True), SETTINGS.model_copy(update={"gate": gate}))

    assert decision.verdict == "released"
    assert "gate.allow_rolled_back allows it" in decision.checks[-1].message


def test_the_champion_itself_is_current_and_not_refused_again() -> None:
    evidence = changed({"candidate_is_champion": True, "gain": replace(GAIN, p_gain=0.9), "p95_ms": None})
    decision = decide(evidence, SETTINGS)

    assert decision.verdict == "current"
    assert decision.reasons == ()
    assert failing(decision) == ["gain_p_value", "p95_ms"]


def test_all_failures_are_reported_at_once() -> None:
    decision = decide(changed({"p95_ms": 9000.0, "drift_share": 0.9, "rolled_back": True}), SETTINGS)

    assert failing(decision) == ["p95_ms", "drift_share", "rolled_back"]
    assert len(decision.reasons) == 3


@pytest.mark.parametrize("evidence", [GOOD, changed({"gain": replace(GAIN, difference=NAN), "p95_ms": INF})])
def test_a_decision_survives_json(evidence: GateEvidence) -> None:
    decision = decide(evidence, SETTINGS)
    values = json.loads(canonical_json(decision.to_dict()))

    assert GateDecision.from_dict(values) == decision
    assert values["reasons"] == list(decision.reasons)


NUMBERS = st.one_of(st.none(), st.just(NAN), st.just(INF), st.floats(0, 3000))
SMALL = st.one_of(st.just(NAN), st.floats(-0.1, 0.1))
COMPARISONS = st.one_of(
    st.none(),
    st.builds(lambda d, low, p: replace(GAIN, difference=d, low=low, p_gain=p), SMALL, SMALL, st.floats(0, 0.1)),
)
FINDINGS = st.dictionaries(st.sampled_from(["passages:contract", "queries:splits"]), st.sampled_from([HOLDS, BROKEN]))
# Mostly good evidence with some fields drawn anew: each verdict is reached often.
EVIDENCE = st.fixed_dictionaries(
    {},
    optional={
        "contracts": FINDINGS,
        "blocking_checks": FINDINGS,
        "gain": COMPARISONS,
        "served_gain": COMPARISONS,
        "degraded_share": st.one_of(st.none(), st.just(NAN), st.floats(0, 0.2)),
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
).map(changed)


def should_release(evidence: GateEvidence) -> bool:
    """The rules, written out a second time; comparisons with NaN are false."""
    first = evidence.champion_version is None and evidence.champion is None
    keeps_up = first or (
        evidence.champion is not None and evidence.champion.low >= -0.02 and evidence.same_evaluation_set
    )
    return (
        bool(evidence.contracts)
        and all(finding.passed for finding in evidence.contracts.values())
        and bool(evidence.blocking_checks)
        and all(finding.passed for finding in evidence.blocking_checks.values())
        and evidence.gain is not None
        and evidence.gain.difference >= 0.01
        and evidence.gain.p_gain <= 0.05
        and evidence.served_gain is not None
        and evidence.served_gain.difference >= 0.01
        and evidence.latency.degraded_share is not None
        and evidence.latency.degraded_share <= 0.1
        and keeps_up
        and evidence.latency.p95_ms is not None
        and evidence.latency.p95_ms <= 1500
        and evidence.latency.p99_ms is not None
        and evidence.latency.p99_ms <= 2500
        and evidence.latency.golden_max_difference is not None
        and evidence.latency.golden_max_difference <= 1e-3
        and evidence.latency.golden_order_equal
        and (evidence.drift_share is None or evidence.drift_share <= 0.5)
        and not evidence.rolled_back
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(EVIDENCE)
def test_nothing_is_released_with_a_failing_check(evidence: GateEvidence) -> None:
    decision = decide(evidence, SETTINGS)

    expected = "current" if evidence.candidate_is_champion else "released" if should_release(evidence) else "refused"
    assert decision.verdict == expected
    assert not (decision.verdict == "released" and failing(decision))
    assert bool(decision.reasons) == (decision.verdict == "refused")
    assert GateDecision.from_dict(json.loads(canonical_json(decision.to_dict()))) == decision
