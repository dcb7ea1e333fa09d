"""Monitoring: what the service answered on a day, and whether that day is like its reference. Daily, in UTC."""

import datetime

import dagster as dg

from assets import keys
from assets.making import make, output
from assets.partitions import DAYS
from assets.policies import (
    DAILY_FRESH,
    NO_CONFIG,
    OWNERS,
    READ_RETRIES,
    WHEN_INPUTS_CHANGE,
    no_retries_of_what_is_certain,
)
from assets.resources import Deployment
from models.settings import values_of
from models.store.artifacts import Artifact
from models.store.code_version import code_version

_LOG = (
    "monitoring.decision_log",
    "monitoring.drift_gate",
    "monitoring.report",
    "monitoring.drift",
    "records.decision_writer",
    "records.decisions",
)
_REPORT = (
    "monitoring.decision_log",
    "monitoring.drift_gate",
    "monitoring.report",
    "monitoring.drift",
    "cascade.calibration",
)


@dg.asset(
    key=keys.DECISION_LOG,
    group_name=keys.MONITORING,
    kinds={"python", "parquet"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_LOG),
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
    from models.monitoring.decision_log import log_digest, read_day, write_log

    log = read_day(deployment.database(), datetime.date.fromisoformat(context.partition_key))
    artifact = make(
        context,
        deployment.store(),
        keys.DECISION_LOG,
        lambda folder: write_log(log, folder),
        modules=_LOG,
        outside={"decisions": log_digest(log)},
    )
    return output(artifact)


@dg.asset(
    key=keys.DRIFT_REPORT,
    group_name=keys.MONITORING,
    kinds={"python", "evidently"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    code_version=code_version(*_REPORT),
    partitions_def=DAYS,
    automation_condition=WHEN_INPUTS_CHANGE,
    freshness_policy=DAILY_FRESH,
    retry_policy=READ_RETRIES,
    ins={"decision_log": dg.AssetIn(key=keys.DECISION_LOG)},
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
    from models.monitoring.report import columns_table, find_windows, read_summary, write_report
    from models.records.ledger import Ledger

    settings = deployment.settings()
    store, ledger = deployment.store(), Ledger(deployment.database())
    day = datetime.date.fromisoformat(context.partition_key)
    windows = find_windows(store, ledger, decision_log, day, settings.monitoring)
    artifact = make(
        context,
        store,
        keys.DRIFT_REPORT,
        lambda folder: write_report(windows, settings.monitoring, folder),
        modules=_REPORT,
        inputs=(decision_log,),
        settings=values_of(settings, "monitoring"),
        outside={"day": context.partition_key, **windows.inputs},
    )
    page = artifact.path(PAGE_FILE) if PAGE_FILE in artifact.manifest.files else None
    return output(
        artifact,
        report=dg.MetadataValue.null() if page is None else dg.MetadataValue.path(str(page)),
        columns=dg.MetadataValue.md(columns_table(read_summary(artifact))),
    )


ASSETS = [decision_log, drift_report]
