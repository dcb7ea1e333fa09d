"""Great Expectations suites as checks: a failed critical expectation stops the run, a soft one warns."""

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.blocking import blocking_check
from checks.results import result_of
from models.expectations.steps import SUITE_READS
from models.release.blocking_checks import find_failed_expectations


def expectation_checks(
    asset: dg.AssetKey, *waits_for: dg.AssetKey
) -> tuple[dg.AssetChecksDefinition, dg.AssetChecksDefinition]:
    """Two checks of the suite of `asset` on the current artifacts: the critical expectations, which block, and the
    warnings.

    Both read one validation. They are apart because the automation waits until every blocking check has passed, which
    one with a warning never would.
    """
    name = keys.artifact_name(asset)

    @dg.asset_check(
        asset=asset,
        name="expectation_warnings",
        description=f"Warning expectations of models/expectations/suites/{asset.path[-1]}.json: what is unusual, and "
        "stops nothing.",
        additional_deps=list(waits_for) or None,
    )
    def warnings(deployment: Deployment) -> dg.AssetCheckResult:
        from models.expectations.suite_results import suite_report

        store = deployment.store()
        artifacts = {read: store.require(read) for read in SUITE_READS[name]}
        report, page = suite_report(store, deployment.settings(), name, artifacts)
        return result_of(find_failed_expectations(report, page, "warning"), dg.AssetCheckSeverity.WARN)

    return blocking_check(asset, "expectations", *waits_for), warnings


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    *expectation_checks(keys.PASSAGES),
    # They do not wait for the judgments, whose check waits for them: one step makes all tables.
    *expectation_checks(keys.QUERIES),
    *expectation_checks(keys.JUDGMENTS, keys.PASSAGES, keys.QUERIES),
    *expectation_checks(keys.EVALUATION_SET),
)
