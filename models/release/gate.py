"""The release gate: what a candidate showed, what the settings ask, and the decision with every number behind it.

Pure: evidence in, decision out. A number that is missing or not finite refuses: a gate that cannot see must not open.
To ask one more thing of a candidate, add a rule to `RULES` and its limit to `GateSettings`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from models.measures.significance import best_of, chance_to_show, queries_to_show
from models.text.markdown import table_lines

if TYPE_CHECKING:
    from models.evaluation.report import Comparison
    from models.release.blocking_checks import Finding
    from models.settings import Settings

Verdict = Literal["released", "refused", "current"]
Operator = Literal[">=", "<=", "=="]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """What loading the bundle and asking it every test query showed: the content of latency.json, times in
    milliseconds.

    A request retrieves and reranks inside `tiers.budget_ms`, so its time says little where that cuts it short:
    `degraded_share` is the part of them that ran into it. The golden numbers compare the bundle, loaded anew, with the
    scores stored in it. None means that it was not measured.
    """

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    n: int
    degraded_share: float | None
    load_seconds: float | None
    golden_queries: int
    golden_max_difference: float | None
    golden_order_equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateEvidence:
    """What is known about a candidate bundle. None means that it was not measured.

    `contracts` and `blocking_checks` are what those of `models.release.blocking_checks` found of the artifacts that the
    candidate was made of, by `BlockingCheck.key`.
    `gain` is the tiered reranker against the best system without a model of ours, and `served_gain` what the loaded
    bundle answered inside the budget against the same. `champion` is the candidate minus the champion, each as it
    serves: by its own first stage and inside the budget, both on evaluation set `evaluation_set_version`;
    `same_evaluation_set` says whether that holds. `lean_alone` says that the candidate asks no model. `judged_before`
    counts the other candidates that were decided on by that evaluation set. `pseudo_only` says that nobody judged its
    test queries: they are made from the text.
    """

    contracts: Mapping[str, Finding]
    blocking_checks: Mapping[str, Finding]
    gain: Comparison | None
    served_gain: Comparison | None
    champion: Comparison | None
    champion_version: str | None
    evaluation_set_version: str
    same_evaluation_set: bool
    lean_alone: bool
    latency: LatencyProfile
    drift_share: float | None
    rolled_back: bool
    candidate_is_champion: bool
    judged_before: int
    pseudo_only: bool = False


@dataclass(frozen=True, slots=True)
class GateCheck:
    """What a rule found: `value comparison threshold`, whether it holds, and in words what it means or what to do.

    `passed` is None where there was nothing to judge, as the loss against a champion before there is one; that does not
    refuse. `power` is the probability that the rule lets through what `power_of` says, with this many queries; None
    where that is no question of chance.
    """

    name: str
    group: str
    passed: bool | None
    value: float | bool | None
    threshold: float | bool
    comparison: Operator
    message: str
    power: float | None = None
    power_of: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the candidate is refused for it."""
        return self.passed is False


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict and all checks. `current` means that the candidate already is the champion: nothing to release."""

    verdict: Verdict
    checks: tuple[GateCheck, ...]
    champion_version: str | None
    evaluation_set_version: str
    judged_before: int = 0
    """Other candidates decided on by the same evaluation set: the best of many looks better than it is."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the candidate was refused, one sentence or two for each failing check; empty for the other verdicts."""
        if self.verdict != "refused":
            return ()
        return tuple(check.message for check in self.checks if check.refuses)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "verdict": self.verdict,
            "checks": [asdict(check) for check in self.checks],
            "reasons": list(self.reasons),
            "champion_version": self.champion_version,
            "evaluation_set_version": self.evaluation_set_version,
            "judged_before": self.judged_before,
        }

    def to_markdown(self) -> str:
        """A table with one row per check."""
        outcome = {True: "passed", False: "refused", None: "not judged"}
        rows = [
            (
                check.name,
                check.value,
                f"{check.comparison} {check.threshold}",
                outcome[check.passed],
                "" if check.power is None else f"{check.power:.0%} for {check.power_of}",
            )
            for check in self.checks
        ]
        return "\n".join(table_lines(("check", "value", "threshold", "outcome", "power"), rows))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GateDecision:
        """Read what `to_dict` wrote; the reasons follow from the checks."""
        return cls(
            verdict=values["verdict"],
            checks=tuple(GateCheck(**check) for check in values["checks"]),
            champion_version=values["champion_version"],
            evaluation_set_version=values["evaluation_set_version"],
            judged_before=values["judged_before"],
        )


@dataclass(frozen=True, slots=True)
class Power:
    """The probability that a rule lets `of` through, and how many queries would make it `WANTED_POWER`."""

    value: float
    of: str
    queries: int | None = None


WANTED_POWER = 0.8

Text = str | Callable[[GateEvidence], str]
"""Words, or how to say them of the evidence."""


def _always(_: GateEvidence) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(ABC):
    """One thing that is asked of a candidate.

    Rules of one `group` are shown as one blocking check on the decision. `not_judged` says why there is nothing to
    judge, None where there is.
    """

    name: str
    group: str
    not_judged: Callable[[GateEvidence], str | None] = _always

    @abstractmethod
    def judge(self, evidence: GateEvidence, settings: Settings) -> tuple[GateCheck, ...]:
        """What the rule finds: one check, or one for each thing that it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRule(Rule):
    """A number that must be at least or at most a threshold.

    `what` names the number, `context` follows its value, and `advice` says what to do when it refuses. It `applies` to
    some candidates alone.
    """

    reads: Callable[[GateEvidence], float | None]
    comparison: Literal[">=", "<="]
    threshold: Callable[[Settings], float]
    what: Text
    context: Text = ""
    advice: Text
    power: Callable[[GateEvidence, Settings], Power | None] = lambda evidence, settings: None
    applies: Callable[[GateEvidence], bool] = lambda evidence: True

    def judge(self, evidence: GateEvidence, settings: Settings) -> tuple[GateCheck, ...]:
        """One check, none where it does not apply; a number that is missing or not finite refuses."""
        if not self.applies(evidence):
            return ()
        threshold, value = float(self.threshold(settings)), self.reads(evidence)
        reason = self.not_judged(evidence)
        if reason is not None:
            return (self._check(None, None, threshold, reason),)
        what = _say(self.what, evidence)
        if value is None or not math.isfinite(value):
            problem = "was not measured" if value is None else f"is {value}, not a finite number"
            message = (
                f"{what} {problem}. Run the evaluation and the latency profile again; without it nothing is released."
            )
            return (self._check(False, None, threshold, message),)
        number = float(value)
        passed = number >= threshold if self.comparison == ">=" else number <= threshold
        side = "at least" if self.comparison == ">=" else "at most"
        context = _say(self.context, evidence)
        power = self.power(evidence, settings)
        statement = f"{what}: {_show(number)}{context}; {side} {_show(threshold)} is asked."
        message = statement if passed else f"{statement} {_say(self.advice, evidence)}{_say_power(power)}"
        return (self._check(passed, number, threshold, message, power),)

    def _check(
        self, passed: bool | None, value: float | None, threshold: float, message: str, power: Power | None = None
    ) -> GateCheck:
        chance, of = (None, "") if power is None else (power.value, power.of)
        return GateCheck(self.name, self.group, passed, value, threshold, self.comparison, message, chance, of)


def _true(_evidence: GateEvidence, _settings: Settings) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRule(Rule):
    """Something that must be so: `holds` says it, and `fails` what else is the case and what to do."""

    reads: Callable[[GateEvidence], bool]
    expected: Callable[[GateEvidence, Settings], bool] = _true
    holds: Text
    fails: Text

    def judge(self, evidence: GateEvidence, settings: Settings) -> tuple[GateCheck, ...]:
        """One check."""
        expected = self.expected(evidence, settings)
        reason = self.not_judged(evidence)
        if reason is not None:
            return (GateCheck(self.name, self.group, None, None, expected, "==", reason),)
        holds, fails = _say(self.holds, evidence), _say(self.fails, evidence)
        return (_flag(self.name, self.group, self.reads(evidence), expected, holds, fails),)


@dataclass(frozen=True, slots=True, kw_only=True)
class EachRule(Rule):
    """Findings that must all have passed, at least one of them: each is a check of its own name.

    `empty` says what to do where there is none.
    """

    reads: Callable[[GateEvidence], Mapping[str, Finding]]
    empty: str

    def judge(self, evidence: GateEvidence, settings: Settings) -> tuple[GateCheck, ...]:
        """One check per finding, by name; one that refuses where there is none."""
        findings = self.reads(evidence)
        if not findings:
            return (GateCheck(self.name, self.group, False, None, True, "==", self.empty),)
        checks: list[GateCheck] = []
        for name in sorted(findings):
            holds = f"{name}: {findings[name].description}"
            fails = f"{holds} {findings[name].advice}"
            checks.append(_flag(name, self.group, findings[name].passed, True, holds, fails))
        return tuple(checks)


def _flag(name: str, group: str, value: object, expected: bool, holds: str, fails: str) -> GateCheck:
    # `is`: a NaN or None that stands in for a flag must not pass.
    passed = value is expected
    shown = value if isinstance(value, bool) else None
    return GateCheck(name, group, passed, shown, expected, "==", holds if passed else fails)


def _say(text: Text, evidence: GateEvidence) -> str:
    return text if isinstance(text, str) else text(evidence)


def _show(value: float) -> str:
    return f"{value:.4g}"


def _say_power(power: Power | None) -> str:
    if power is None:
        return ""
    more = "" if power.queries is None or power.value >= WANTED_POWER else f"; {power.queries:,} queries make it 80 %"
    return f" With these queries the rule lets {power.of} through {power.value:.0%} of the time{more}."


def _gained(gain: Comparison | None, otherwise: str) -> str:
    return otherwise if gain is None else f"{gain.measure} gained by {gain.candidate} over {gain.baseline}"


def _gain_context(gain: Comparison | None) -> str:
    if gain is None:
        return ""
    return (
        f" [{_show(gain.low)}, {_show(gain.high)}] on {gain.queries} queries"
        f" ({gain.improved} improved, {gain.hurt} hurt, {gain.same} same)"
    )


def _tries_context(evidence: GateEvidence) -> str:
    """The gain's context, and what chance alone shows where several candidates were tried on the same queries."""
    gain, tries = evidence.gain, evidence.judged_before + 1
    worth = "; judged on pseudo-queries only, which say nothing of real questions" if evidence.pseudo_only else ""
    if gain is None or tries == 1:
        return _gain_context(gain) + worth
    luck = best_of(tries) * gain.standard_error
    return (
        f"{_gain_context(gain)}{worth}; of {tries} candidates judged on these queries the best shows {_show(luck)} by"
        " chance"
    )


def _power_to_show(gain: Comparison | None, true: float, limit: float, confidence: float, of: str) -> Power | None:
    """Of a rule that asks the lower end of an interval of `confidence` for `limit`, where the mean is `true`."""
    if gain is None or not math.isfinite(gain.standard_error):
        return None
    value = chance_to_show(true, limit, gain.standard_error, confidence=confidence)
    queries = queries_to_show(true, limit, gain.standard_error, gain.queries, confidence=confidence, power=WANTED_POWER)
    return Power(value, of, queries)


def _power_of_gain(gain: Comparison | None, settings: Settings) -> Power | None:
    least = settings.gate.min_gain
    return _power_to_show(gain, 2 * least, least, 0.0, f"a true gain of {_show(2 * least)}")


def _power_of_test(evidence: GateEvidence, settings: Settings) -> Power | None:
    least, confidence = settings.gate.min_gain, 1 - 2 * settings.gate.max_p_value
    return _power_to_show(evidence.gain, 2 * least, 0.0, confidence, f"a true gain of {_show(2 * least)}")


def _power_of_equal(evidence: GateEvidence, settings: Settings) -> Power | None:
    loss, confidence = settings.gate.max_champion_loss, settings.evaluation.confidence
    return _power_to_show(evidence.champion, 0.0, -loss, confidence, "a candidate exactly as good as the champion")


def _power_of_requests(evidence: GateEvidence, settings: Settings) -> Power | None:
    from scipy import stats

    requests, limit = evidence.latency.n, settings.gate.max_degraded_share
    if not requests:
        return None
    value = float(stats.binom.cdf(math.floor(limit * requests + 1e-9), requests, limit / 2))
    return Power(value, f"a bundle with a true share of {_show(limit / 2)}")


def _chance_advice(evidence: GateEvidence) -> str:
    gain = evidence.gain
    shown = "" if gain is None else f" This many queries show a difference from {_show(gain.detectable)} up."
    return f"It may be chance: evaluate on more queries (evaluation.max_test_queries) or improve the model.{shown}"


def _champion(evidence: GateEvidence) -> str:
    return evidence.champion_version or "unknown"


def _champion_context(evidence: GateEvidence) -> str:
    champion = evidence.champion
    return "" if champion is None else f"; mean {_show(champion.difference)} on {champion.queries} queries"


def _lean_alone(evidence: GateEvidence) -> str | None:
    if not evidence.lean_alone:
        return None
    return (
        "The release serves lean alone: on the development queries the models did not rank better than the first stage."
    )


def _no_champion(evidence: GateEvidence) -> str | None:
    none = evidence.champion_version is None and evidence.champion is None
    return "No champion yet: nothing to lose against." if none else None


def _no_drift_report(evidence: GateEvidence) -> str | None:
    none = evidence.drift_share is None
    return "No drift report yet: there were too few decisions to judge." if none else None


RULES: tuple[Rule, ...] = (
    EachRule(
        name="contracts",
        group="contracts_hold",
        reads=lambda evidence: evidence.contracts,
        empty="No data contract was checked. Run `rerankops run`.",
    ),
    EachRule(
        name="blocking_checks",
        group="blocking_checks_hold",
        reads=lambda evidence: evidence.blocking_checks,
        empty="No blocking check was made. Run `rerankops run`.",
    ),
    NumberRule(
        name="gain",
        group="significant_gain",
        not_judged=_lean_alone,
        reads=lambda evidence: evidence.gain and evidence.gain.difference,
        comparison=">=",
        threshold=lambda settings: settings.gate.min_gain,
        what=lambda evidence: _gained(evidence.gain, "nDCG@10 gained over the best system without a model"),
        context=_tries_context,
        advice="The models add too little to what serves without them: train on more or better examples, or lower"
        " gate.min_gain.",
        power=lambda evidence, settings: _power_of_gain(evidence.gain, settings),
    ),
    NumberRule(
        name="gain_p_value",
        group="significant_gain",
        not_judged=_lean_alone,
        reads=lambda evidence: evidence.gain and evidence.gain.p_gain,
        comparison="<=",
        threshold=lambda settings: settings.gate.max_p_value,
        what="p value of no gain, one-sided paired randomization test",
        advice=_chance_advice,
        power=_power_of_test,
    ),
    NumberRule(
        name="lean_loss",
        group="significant_gain",
        applies=lambda evidence: evidence.lean_alone,
        reads=lambda evidence: evidence.gain and evidence.gain.high,
        comparison=">=",
        threshold=lambda settings: 0.0,
        what="Upper end of lean, served alone, minus the best system without a model",
        context=lambda evidence: _gain_context(evidence.gain),
        advice="The first stage that the development queries chose is worse than another on the test queries: name that"
        " one in index.fusion, or evaluate on more development queries (evaluation.max_dev_queries).",
    ),
    NumberRule(
        name="served_gain",
        group="holds_under_budget",
        not_judged=_lean_alone,
        reads=lambda evidence: evidence.served_gain and evidence.served_gain.difference,
        comparison=">=",
        threshold=lambda settings: settings.gate.min_gain,
        what=lambda evidence: _gained(evidence.served_gain, "nDCG@10 gained by the answers of the loaded bundle"),
        context=lambda evidence: _gain_context(evidence.served_gain),
        advice="What is served inside tiers.budget_ms adds too little: raise the budget, or lower"
        " tiers.large_candidates.",
        power=lambda evidence, settings: _power_of_gain(evidence.served_gain, settings),
    ),
    NumberRule(
        name="degraded_share",
        group="holds_under_budget",
        reads=lambda evidence: evidence.latency.degraded_share,
        comparison="<=",
        threshold=lambda settings: settings.gate.max_degraded_share,
        what="Share of requests that ran into tiers.budget_ms",
        context=lambda evidence: f" of {evidence.latency.n}",
        advice="Raise tiers.budget_ms, lower tiers.large_candidates or tiers.early_exit_budget, or serve on a faster"
        " machine.",
        power=_power_of_requests,
    ),
    FlagRule(
        name="same_evaluation_set",
        group="not_inferior_to_champion",
        not_judged=_no_champion,
        reads=lambda evidence: evidence.same_evaluation_set,
        holds=lambda evidence: (
            f"Candidate and champion were judged on evaluation set {evidence.evaluation_set_version}."
        ),
        fails=lambda evidence: (
            f"Champion {_champion(evidence)} was not judged on evaluation set {evidence.evaluation_set_version}."
            " Evaluate the champion on it, so that both answer the same queries."
        ),
    ),
    NumberRule(
        name="champion_loss",
        group="not_inferior_to_champion",
        not_judged=_no_champion,
        reads=lambda evidence: evidence.champion and evidence.champion.low,
        comparison=">=",
        threshold=lambda settings: -settings.gate.max_champion_loss,
        what=lambda evidence: f"Lower end of candidate minus champion {_champion(evidence)}",
        context=_champion_context,
        advice="The candidate may be worse than what is serving: keep the champion, evaluate on more queries, or raise"
        " gate.max_champion_loss.",
        power=_power_of_equal,
    ),
    NumberRule(
        name="p95_ms",
        group="latency_within_objectives",
        reads=lambda evidence: evidence.latency.p95_ms,
        comparison="<=",
        threshold=lambda settings: settings.objectives.p95_ms,
        what="95th percentile of a rerank request, ms",
        advice="Lower tiers.large_candidates, or raise objectives.p95_ms.",
    ),
    NumberRule(
        name="p99_ms",
        group="latency_within_objectives",
        reads=lambda evidence: evidence.latency.p99_ms,
        comparison="<=",
        threshold=lambda settings: settings.objectives.p99_ms,
        what="99th percentile of a rerank request, ms",
        advice="Lower tiers.large_candidates, or raise objectives.p99_ms.",
    ),
    NumberRule(
        name="golden_difference",
        group="golden_scores_reproduced",
        reads=lambda evidence: evidence.latency.golden_max_difference,
        comparison="<=",
        threshold=lambda settings: settings.gate.max_golden_difference,
        what="Largest difference of a golden score after reloading the bundle",
        advice="Build the bundle again: its files or its libraries differ from those that were evaluated.",
    ),
    FlagRule(
        name="golden_order",
        group="golden_scores_reproduced",
        reads=lambda evidence: evidence.latency.golden_order_equal,
        holds="The reloaded bundle ranks the golden queries as recorded.",
        fails="The reloaded bundle ranks the golden queries in another order. Build the bundle again.",
    ),
    NumberRule(
        name="drift_share",
        group="drift_within_limit",
        not_judged=_no_drift_report,
        reads=lambda evidence: evidence.drift_share,
        comparison="<=",
        threshold=lambda settings: settings.gate.max_drift_share,
        what="Share of drifted columns in the latest report",
        advice="Traffic has moved away from what was evaluated: look at the drift report, then retrain.",
    ),
    FlagRule(
        name="rolled_back",
        group="not_rolled_back",
        reads=lambda evidence: evidence.rolled_back,
        expected=lambda evidence, settings: evidence.rolled_back and settings.gate.allow_rolled_back,
        holds=lambda evidence: (
            "This bundle was rolled back; gate.allow_rolled_back allows it."
            if evidence.rolled_back
            else "This bundle was never rolled back."
        ),
        fails="This bundle was rolled back before. Train a new one, or set gate.allow_rolled_back to release it again.",
    ),
)
"""All that is asked of a candidate. The checks on the decision follow from it, one for each group."""


def decide(evidence: GateEvidence, settings: Settings) -> GateDecision:
    """Release only if no rule refuses.

    A candidate that already is the champion is `current` whatever the rules say: it was judged when it was released.
    """
    checks = tuple(check for rule in RULES for check in rule.judge(evidence, settings))
    if evidence.candidate_is_champion:
        verdict: Verdict = "current"
    else:
        verdict = "refused" if any(check.refuses for check in checks) else "released"
    return GateDecision(
        verdict, checks, evidence.champion_version, evidence.evaluation_set_version, evidence.judged_before
    )


def refusals(decision: GateDecision, recorded: Mapping[str, Any], candidate: str) -> tuple[str, ...]:
    """Why bundle `candidate` is not released: what `decision`, of now, says, and what `recorded`, decision.json, does.

    A recorded refusal counts also when nothing refuses any more: what was decided is then decided again, on record.
    """
    if recorded["candidate"] != candidate:
        return (*decision.reasons, "The gate decided on another candidate; materialize gate_decision again.")
    if recorded["verdict"] == "refused" and not decision.reasons:
        return ("The recorded decision is a refusal; materialize gate_decision again with what now holds.",)
    return decision.reasons
