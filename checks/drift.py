"""Drift of a day of decisions, held against gate.max_drift_share. A warning, not an error: drift does not
invalidate the data."""

import dagster as dg

from assets import keys
from assets.partitions import checked_partition
from assets.resources import Deployment
from checks.results import check_result
from models.errors import ArtifactError


@dg.asset_check(asset=keys.DRIFT_REPORT)
def drift_share(context: dg.AssetCheckExecutionContext, deployment: Deployment) -> dg.AssetCheckResult:
    """Drifted columns are at most gate.max_drift_share of the compared ones; too few decisions are not judged. More
    open an incident, one a day."""
    from models.monitoring.drift import PAGE_FILE
    from models.monitoring.drift_gate import open_drift_incident
    from models.monitoring.report import read_summary

    limit = deployment.settings().gate.max_drift_share
    partition = checked_partition(context, keys.DRIFT_REPORT)
    if partition is None:
        raise ArtifactError("there is no drift report yet", "Materialize monitoring/drift_report for a day first.")
    artifact = deployment.store().require(keys.artifact_name(keys.DRIFT_REPORT), partition)
    summary = read_summary(artifact)
    open_drift_incident(deployment.database(), artifact, limit)
    page = artifact.path(PAGE_FILE) if PAGE_FILE in artifact.manifest.files else None
    if summary.share is None:
        return check_result(
            True, f"Not judged. {summary.reason}", value=None, threshold=limit, judged=False, report=page
        )
    return check_result(
        summary.share <= limit,
        f"{len(summary.drifted)} of {len(summary.columns)} columns drifted: {', '.join(summary.drifted) or 'none'}.",
        value=summary.share,
        threshold=limit,
        violations=len(summary.drifted),
        examples=[
            {"column": name, "method": column.method, "statistic": column.statistic, "threshold": column.threshold}
            for name, column in summary.columns.items()
            if column.drifted
        ],
        report=page,
        severity=dg.AssetCheckSeverity.WARN,
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (drift_share,)
