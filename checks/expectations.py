"""Great Expectations suites as blocking checks: a failed critical expectation stops the run, a soft one warns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result
from models.settings import Settings

if TYPE_CHECKING:
    from models.expectations.validation import ExpectationReport

_CHARACTERS_PER_TOKEN = 12
"""Word pieces of prose have 4 to 5 characters; a passage with more than 12 per token was not cut by tokens."""

_AGAINST_ACCEPTED = "_accepted"
"""How the names of expectations end that compare with the accepted version."""

Parameters = Callable[[Settings], dict[str, Any]]


def _passages_parameters(settings: Settings) -> dict[str, Any]:
    return {"min_passages": 2, "max_characters": _CHARACTERS_PER_TOKEN * settings.corpus.passage_tokens}


def _no_parameters(_settings: Settings) -> dict[str, Any]:
    return {}


def _evaluation_parameters(_settings: Settings) -> dict[str, Any]:
    return {"min_test_queries": 6, "min_dev_queries": 2, "max_mean_positives": 10}


def expectation_checks(
    asset: dg.AssetKey, suite: str, parameters: Parameters, others: tuple[dg.AssetKey, ...] = ()
) -> tuple[dg.AssetChecksDefinition, dg.AssetChecksDefinition]:
    """Two checks of `suite` on the current artifact: the critical expectations, which block, and the warnings.

    `parameters` come from the settings, beside the numbers of the last accepted version; `others` are the assets whose
    tables the suite looks at too. Both checks read one validation. They are apart because the automation waits until
    every blocking check has passed, which one with a warning never would.
    """
    file = f"models/expectations/suites/{suite}.json"

    @dg.asset_check(
        asset=asset,
        name="expectations",
        description=f"Critical expectations of {file}: counts, shares and distributions.",
        additional_deps=list(others),
        blocking=True,
    )
    def critical(deployment: Deployment) -> dg.AssetCheckResult:
        return _result(*_validated(deployment, asset, suite, parameters), "critical")

    @dg.asset_check(
        asset=asset,
        name="expectation_warnings",
        description=f"Warning expectations of {file}: what is unusual, and stops nothing.",
        additional_deps=list(others),
    )
    def warnings(deployment: Deployment) -> dg.AssetCheckResult:
        return _result(*_validated(deployment, asset, suite, parameters), "warning")

    return critical, warnings


def _validated(
    deployment: Deployment, asset: dg.AssetKey, suite: str, parameters: Parameters
) -> "tuple[ExpectationReport, Path]":
    from models.expectations.suite_results import suite_report

    settings = deployment.settings()
    return suite_report(deployment.store(), settings, keys.artifact_name(asset), suite, parameters(settings))


def _result(report: "ExpectationReport", page: Path, severity: str) -> dg.AssetCheckResult:
    outcomes = [outcome for outcome in report.results if outcome.severity == severity]
    failed = [outcome for outcome in outcomes if not outcome.success]
    left_out = len(report.left_out)
    compared = f" {left_out} of the suite had no accepted version to compare with." if left_out else ""
    if any(outcome.name.endswith(_AGAINST_ACCEPTED) for outcome in failed):
        compared += " Where the corpus changed on purpose, run once with --set corpus.hold_against_accepted=false."
    return check_result(
        not failed,
        f"{len(outcomes) - len(failed)} of {len(outcomes)} {severity} expectations held.{compared}",
        value=1 - len(failed) / max(len(outcomes), 1),
        threshold=1,
        violations=len(failed),
        examples=[_example(outcome) for outcome in failed],
        report=page,
        severity=dg.AssetCheckSeverity.ERROR if severity == "critical" else dg.AssetCheckSeverity.WARN,
    )


def _example(outcome: Any) -> Mapping[str, Any]:
    rows = "; ".join(", ".join(f"{name}={value}" for name, value in row.items()) for row in outcome.examples[:3])
    return {
        "expectation": outcome.name,
        "severity": outcome.severity,
        "column": outcome.column,
        "expected": outcome.expected,
        "observed": outcome.observed,
        "rows": rows,
    }


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    *expectation_checks(keys.PASSAGES, "passages", _passages_parameters),
    # They do not wait for the judgments, whose check waits for them: one step makes all tables.
    *expectation_checks(keys.QUERIES, "queries", _no_parameters),
    *expectation_checks(keys.JUDGMENTS, "judgments", _no_parameters, (keys.PASSAGES, keys.QUERIES)),
    *expectation_checks(keys.EVALUATION_SET, "evaluation_set", _evaluation_parameters),
)
