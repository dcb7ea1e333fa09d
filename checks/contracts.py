"""Data contracts as blocking checks: one per table of an asset, and the share of rows that were refused at the door."""

import dagster as dg

from assets import keys
from assets.partitions import checked_partition
from assets.resources import Deployment
from checks.blocking import blocking_check
from checks.results import result_of
from models.release.blocking_checks import BLOCKING_CHECKS, contract_description, find_contract_violations

_DECISION_LOG = "decision_log.parquet"


@dg.asset_check(
    asset=keys.DECISION_LOG, name="contract", description=contract_description(_DECISION_LOG), blocking=True
)
def decision_log_contract(context: dg.AssetCheckExecutionContext, deployment: Deployment) -> dg.AssetCheckResult:
    """The contract of one day: the run's, or else the one that was materialized last. No candidate is made of it."""
    store = deployment.store()
    artifact = store.require(keys.artifact_name(keys.DECISION_LOG), checked_partition(context, keys.DECISION_LOG))
    return result_of(find_contract_violations(_DECISION_LOG, store, artifact))


# On passages, from which everything is made: nothing reads quarantined_rows, so a check there would block nothing. It
# does not wait for queries and judgments, whose own checks would keep it from running: one step makes all four tables.
rejected_share = blocking_check(keys.PASSAGES, "rejected_share", keys.QUARANTINED_ROWS)

CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    *(
        blocking_check(dg.AssetKey(check.asset.split("/")), check.name)
        for check in BLOCKING_CHECKS
        if check.is_contract
    ),
    decision_log_contract,
    rejected_share,
)
