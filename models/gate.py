"""The release gate: what a candidate showed, what the settings ask, and the decision with every number behind it.

Pure: evidence in, decision out. A number that is missing or not finite refuses: a gate that cannot see must not open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.evaluation import Comparison
from models.settings import GateSettings, ObjectivesSettings

Verdict = Literal["released", "refused", "current"]
Operator = Literal[">=", "<=", "=="]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEvidence:
    """What is known about a candidate bundle. None means that it was not measured.

    `gain` is the tiered reranker against the best first stage; `champion` is the candidate minus the champion, both
    tiered, both on evaluation set `evaluation_set_version`, and `same_evaluation_set` says whether that holds. `p95_ms`
    and `p99_ms` are of one rerank request; the golden numbers compare the bundle, loaded anew, with the scores stored
    in it.
    """

    contracts_hold: Mapping[str, bool]
    gain: Comparison | None
    champion: Comparison | None
    champion_version: str | None
    evaluation_set_version: str
    same_evaluation_set: bool
    p95_ms: float | None
    p99_ms: float | None
    golden_max_difference: float | None
    golden_order_equal: bool
    drift_share: float | None
    rolled_back: bool
    candidate_is_champion: bool


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One rule: `value comparison threshold`, whether it holds, and in words what it means or what to do."""

    name: str
    passed: bool
    value: float | bool | None
    threshold: float | bool | None
    comparison: Operator
    message: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict and all checks. `current` means that the candidate already is the champion: nothing to release."""

    verdict: Verdict
    checks: tuple[GateCheck, ...]
    champion_version: str | None
    evaluation_set_version: str

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the candidate was refused, one sentence or two for each failing check; empty for the other verdicts."""
        if self.verdict != "refused":
            return ()
        return tuple(check.message for check in self.checks if not check.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
            "reasons": list(self.reasons),
            "champion_version": self.champion_version,
            "evaluation_set_version": self.evaluation_set_version,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateDecision:
        """Read what `to_dict` wrote; the reasons follow from the checks."""
        return cls(
            verdict=values["verdict"],
            checks=tuple(GateCheck(**check) for check in values["checks"]),
            champion_version=values["champion_version"],
            evaluation_set_version=values["evaluation_set_version"],
        )


def decide(evidence: GateEvidence, policy: GateSettings, objectives: ObjectivesSettings) -> GateDecision:
    """Release only if every check passes.

    A candidate that already is the champion is `current` whatever the checks say: it was judged when it was released.
    """
    checks = (
        *_contract_checks(evidence.contracts_hold),
        *_gain_checks(evidence.gain, policy),
        *_champion_checks(evidence, policy),
        _number(
            "p95_ms", evidence.p95_ms, "<=", objectives.p95_ms,
            "95th percentile of a rerank request, ms", "Lower tiers.large_candidates, or raise objectives.p95_ms.",
        ),
        _number(
            "p99_ms", evidence.p99_ms, "<=", objectives.p99_ms,
            "99th percentile of a rerank request, ms", "Lower tiers.large_candidates, or raise objectives.p99_ms.",
        ),
        _number(
            "golden_difference", evidence.golden_max_difference, "<=", policy.max_golden_difference,
            "Largest difference of a golden score after reloading the bundle",
            "Build the bundle again: its files or its libraries differ from those that were evaluated.",
        ),
        _flag(
            "golden_order", evidence.golden_order_equal, True,
            "The reloaded bundle ranks the golden queries as recorded.",
            "The reloaded bundle ranks the golden queries in another order. Build the bundle again.",
        ),
        _drift_check(evidence.drift_share, policy),
        _rolled_back_check(evidence.rolled_back, policy),
    )  # fmt: skip
    if evidence.candidate_is_champion:
        verdict: Verdict = "current"
    else:
        verdict = "released" if all(check.passed for check in checks) else "refused"
    return GateDecision(verdict, checks, evidence.champion_version, evidence.evaluation_set_version)


def _contract_checks(contracts: Mapping[str, bool]) -> tuple[GateCheck, ...]:
    if not contracts:
        message = "No data contract was checked. Run the checks of the corpus, index and training assets."
        return (GateCheck("contracts", False, None, True, "==", message),)
    return tuple(
        _flag(
            f"contract:{name}", contracts[name], True,
            f"Contract {name} holds.",
            f"Contract {name} is broken. Look at that check's rows, correct the source and run again.",
        )
        for name in sorted(contracts)
    )  # fmt: skip


def _gain_checks(gain: Comparison | None, policy: GateSettings) -> tuple[GateCheck, ...]:
    if gain is None:
        what, context = "nDCG@10 gained over the best first stage", ""
    else:
        what = f"{gain.measure} gained by {gain.candidate} over {gain.baseline}"
        context = (
            f" [{_show(gain.low)}, {_show(gain.high)}] on {gain.queries} queries"
            f" ({gain.improved} improved, {gain.hurt} hurt, {gain.same} same)"
        )
    shown = "" if gain is None else f" This many queries show a difference from {_show(gain.detectable)} up."
    return (
        _number(
            "gain", None if gain is None else gain.difference, ">=", policy.min_gain,
            what, "Train on more or better examples, or lower gate.min_gain.", context,
        ),
        _number(
            "gain_p_value", None if gain is None else gain.p_value, "<=", policy.max_p_value,
            "p value of that gain, paired randomization test",
            f"It may be chance: evaluate on more queries (evaluation.max_test_queries) or improve the model.{shown}",
        ),
    )  # fmt: skip


def _champion_checks(evidence: GateEvidence, policy: GateSettings) -> tuple[GateCheck, ...]:
    limit = -policy.max_champion_loss
    if evidence.champion_version is None and evidence.champion is None:
        message = "No champion yet: nothing to lose against."
        return (
            GateCheck("same_evaluation_set", True, None, True, "==", message),
            GateCheck("champion_loss", True, None, limit, ">=", message),
        )
    champion = evidence.champion
    version = evidence.champion_version or "unknown"
    context = "" if champion is None else f"; mean {_show(champion.difference)} on {champion.queries} queries"
    return (
        _flag(
            "same_evaluation_set", evidence.same_evaluation_set, True,
            f"Candidate and champion were judged on evaluation set {evidence.evaluation_set_version}.",
            f"Champion {version} was not judged on evaluation set {evidence.evaluation_set_version}."
            " Evaluate the champion on it, so that both answer the same queries.",
        ),
        _number(
            "champion_loss", None if champion is None else champion.low, ">=", limit,
            f"Lower end of candidate minus champion {version}",
            "The candidate may be worse than what is serving: keep the champion, evaluate on more queries, or raise"
            " gate.max_champion_loss.",
            context,
        ),
    )  # fmt: skip


def _drift_check(share: float | None, policy: GateSettings) -> GateCheck:
    if share is None:
        return GateCheck(
            "drift_share",
            True,
            None,
            policy.max_drift_share,
            "<=",
            "No drift report yet: there were too few decisions to judge.",
        )
    return _number(
        "drift_share", share, "<=", policy.max_drift_share,
        "Share of drifted columns in the latest report",
        "Traffic has moved away from what was evaluated: look at the drift report, then retrain.",
    )  # fmt: skip


def _rolled_back_check(rolled_back: bool, policy: GateSettings) -> GateCheck:
    if not rolled_back:
        return GateCheck("rolled_back", True, False, False, "==", "This bundle was never rolled back.")
    if policy.allow_rolled_back:
        return GateCheck(
            "rolled_back", True, True, True, "==", "This bundle was rolled back; gate.allow_rolled_back allows it."
        )
    message = "This bundle was rolled back before. Train a new one, or set gate.allow_rolled_back to release it again."
    return GateCheck("rolled_back", False, True, False, "==", message)


def _number(
    name: str, value: float | None, comparison: Operator, threshold: float, what: str, advice: str, context: str = ""
) -> GateCheck:
    if value is None or not math.isfinite(value):
        known = "was not measured" if value is None else f"is {value}, not a finite number"
        message = f"{what} {known}. Run the evaluation and the latency profile again; without it nothing is released."
        return GateCheck(name, False, None, threshold, comparison, message)
    number = float(value)
    passed = number >= threshold if comparison == ">=" else number <= threshold
    side = "at least" if comparison == ">=" else "at most"
    statement = f"{what}: {_show(number)}{context}; {side} {_show(threshold)} is asked."
    return GateCheck(
        name, passed, number, float(threshold), comparison, statement if passed else f"{statement} {advice}"
    )


def _flag(name: str, value: bool, expected: bool, holds: str, fails: str) -> GateCheck:
    # `is`: a NaN or None that stands in for a flag must not pass.
    passed = value is expected
    return GateCheck(
        name, passed, value if isinstance(value, bool) else None, expected, "==", holds if passed else fails
    )


def _show(value: float) -> str:
    return f"{value:.4g}"
