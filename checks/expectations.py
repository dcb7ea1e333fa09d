"""Great Expectations suites as blocking checks: a failed critical expectation stops the run, a soft one warns."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result
from models.artifacts import Artifact
from models.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from models.expectations import ExpectationReport

_CHARACTERS_PER_TOKEN = 12
"""Word pieces of prose have 4 to 5 characters; a passage with more than 12 per token was not cut by tokens."""


def _passages_table(artifact: Artifact) -> "pd.DataFrame":
    from models.expectations import passage_table

    return passage_table(artifact.read_table("passages.parquet"))


def _passages_parameters(settings: Settings) -> dict[str, Any]:
    return {"min_passages": 2, "max_characters": _CHARACTERS_PER_TOKEN * settings.corpus.passage_tokens}


def _evaluation_table(artifact: Artifact) -> "pd.DataFrame":
    from models.expectations import evaluation_table

    return evaluation_table(artifact.read_table("queries.parquet"), artifact.read_table("judgments.parquet"))


def _evaluation_parameters(settings: Settings) -> dict[str, Any]:
    return {"min_test_queries": 6, "min_dev_queries": 2, "max_mean_positives": 10}


def expectation_check(
    asset: dg.AssetKey,
    suite: str,
    table: "Callable[[Artifact], pd.DataFrame]",
    parameters: Callable[[Settings], dict[str, Any]],
) -> dg.AssetChecksDefinition:
    """A blocking check of `suite` on `table` of the current artifact, with `parameters` from the settings."""

    @dg.asset_check(
        asset=asset,
        name="expectations",
        description=f"Counts, shares and distributions as expected (models/expectation_suites/{suite}.json).",
        blocking=True,
    )
    def check(deployment: Deployment) -> dg.AssetCheckResult:
        from models.code_version import code_version
        from models.expectations import ExpectationReport, suite_file, validate
        from models.files import digest_file

        settings, store = deployment.settings(), deployment.store()
        artifact = store.require(keys.artifact_name(asset))
        values = parameters(settings)
        key = {
            "asset": artifact.asset,
            "data_version": artifact.data_version,
            "suite": digest_file(suite_file(suite)),
            "parameters": values,
            "code": code_version("expectations"),
        }
        found = store.remember("expectations", key, lambda: validate(table(artifact), suite, values).to_dict())
        report = ExpectationReport.from_dict(found)
        return _result(report, _write_page(report, settings.home, artifact))

    return check


def _write_page(report: "ExpectationReport", home: Path, artifact: Artifact) -> Path:
    from models.expectations import report_html
    from models.files import write_atomically

    path = home / "reports" / "expectations" / f"{artifact.asset.replace('/', '-')}-{artifact.data_version}.html"
    write_atomically(path, report_html(report).encode())
    return path


def _result(report: "ExpectationReport", page: Path) -> dg.AssetCheckResult:
    counts = report.statistics
    critical, warning = int(counts["failed_critical"]), int(counts["failed_warning"])
    return check_result(
        report.success,
        f"{int(counts['successful'])} of {int(counts['evaluated'])} expectations held; "
        f"{critical} critical and {warning} warning ones failed.",
        value=counts["success_share"],
        threshold=1,
        violations=critical + warning,
        examples=[_example(outcome) for outcome in report.results if not outcome.success],
        report=page,
        severity=dg.AssetCheckSeverity.WARN if critical == 0 else dg.AssetCheckSeverity.ERROR,
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
    expectation_check(keys.PASSAGES, "passages", _passages_table, _passages_parameters),
    expectation_check(keys.EVALUATION_SET, "evaluation_set", _evaluation_table, _evaluation_parameters),
)
