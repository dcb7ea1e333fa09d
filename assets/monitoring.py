"""Monitoring: what the service answered on a day, and whether that day is like its reference. Daily, in UTC."""

import datetime

import dagster as dg

from assets import keys
from assets.making import asset_of, output
from assets.partitions import DAYS
from assets.policies import DAILY_FRESH, READ_RETRIES, no_retries_of_what_is_certain
from assets.resources import Deployment
from models.monitoring.steps import DECISION_LOG, DRIFT_REPORT
from models.store.artifacts import Artifact


@asset_of(
    DECISION_LOG,
    automation_condition=None,
    # Not read: the service that it serves writes the decisions.
    deps=[keys.ONLINE_SCORING],
    kinds={"python", "parquet"},
    partitions_def=DAYS,
    freshness_policy=DAILY_FRESH,
    retry_policy=READ_RETRIES,
)
@no_retries_of_what_is_certain()
def decision_log(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.Output[Artifact]:
    """One row per request that the service answered on the day: query, scores, tiers, versions, latency.

    The deployment's own probes are left out. The running day can be materialized again and again; a day without new
    decisions is reused.
    """
    from models.monitoring.decision_log import make_decision_log

    day = datetime.date.fromisoformat(context.partition_key)
    return output(context, make_decision_log(deployment.store(), deployment.settings(), deployment.database(), day))


@asset_of(
    DRIFT_REPORT,
    keys.DECISION_LOG,
    kinds={"python", "evidently"},
    partitions_def=DAYS,
    freshness_policy=DAILY_FRESH,
    retry_policy=READ_RETRIES,
)
@no_retries_of_what_is_certain()
def drift_report(
    context: dg.AssetExecutionContext, deployment: Deployment, decision_log: Artifact
) -> dg.Output[Artifact]:
    """Queries, scores and retrieval of the day against the reference window, tested column by column with Evidently.

    Below monitoring.min_decisions answers nothing is judged. The check `drift_share` holds the result against
    gate.max_drift_share.
    """
    from models.monitoring.drift import PAGE_FILE
    from models.monitoring.report import columns_table, make_drift_report, read_summary
    from models.records.ledger import Ledger

    day = datetime.date.fromisoformat(context.partition_key)
    ledger = Ledger(deployment.database())
    artifact = make_drift_report(deployment.store(), deployment.settings(), ledger, decision_log, day)
    page = artifact.path(PAGE_FILE) if PAGE_FILE in artifact.manifest.files else None
    return output(
        context,
        artifact,
        report=dg.MetadataValue.null() if page is None else dg.MetadataValue.path(str(page)),
        columns=dg.MetadataValue.md(columns_table(read_summary(artifact))),
    )


ASSETS = [decision_log, drift_report]
