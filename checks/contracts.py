"""Data contracts as blocking checks: one per table of an asset, and the share of rows that were refused at the door."""

import dagster as dg

from assets import keys
from assets.partitions import checked_partition
from assets.resources import Deployment
from checks.results import check_result
from models.corpus.steps import TABLES

CONTRACTS: tuple[tuple[dg.AssetKey, str, str], ...] = (
    (keys.PASSAGES, "passages.parquet", "contract"),
    (keys.QUERIES, "queries.parquet", "contract"),
    (keys.JUDGMENTS, "judgments.parquet", "contract"),
    (keys.QUARANTINED_ROWS, "quarantined_rows.parquet", "contract"),
    (keys.EVALUATION_SET, "queries.parquet", "queries_contract"),
    (keys.EVALUATION_SET, "judgments.parquet", "judgments_contract"),
    (keys.CANDIDATES, "candidates.parquet", "contract"),
    (keys.CANDIDATES, "training_candidates.parquet", "training_contract"),
    (keys.TRAINING_EXAMPLES, "training_examples.parquet", "contract"),
    (keys.TRAINING_EXAMPLES, "development_lists.parquet", "development_contract"),
    (keys.TRAINING_EXAMPLES, "excluded_queries.parquet", "excluded_queries_contract"),
    (keys.LOGGED_LISTS, "logged_lists.parquet", "contract"),
    (keys.LOGGED_LISTS, "excluded_queries.parquet", "excluded_queries_contract"),
    (keys.DECISION_LOG, "decision_log.parquet", "contract"),
)
"""(asset, table, check name) of every table that has a contract."""


def contract_check(asset: dg.AssetKey, table: str, name: str) -> dg.AssetChecksDefinition:
    """A blocking check that every row of `table` in the current artifact of `asset` holds its contract.

    Of an asset with partitions it looks at the run's, or alone at the one that was materialized last.
    """

    @dg.asset_check(
        asset=asset,
        name=name,
        description=f"Every row of {table} holds its data contract (models/contracts/tables.py).",
        blocking=True,
    )
    def check(context: dg.AssetCheckExecutionContext, deployment: Deployment) -> dg.AssetCheckResult:
        from models.expectations.contract_results import contract_violations

        store = deployment.store()
        artifact = store.require(keys.artifact_name(asset), checked_partition(context, asset))
        violations = contract_violations(store, artifact, table)
        broken = int(violations["count"])
        return check_result(
            broken == 0,
            f"{broken} places break the contract of {table}, in {violations['rows']} rows.",
            value=broken,
            threshold=0,
            violations=broken,
            examples=violations["examples"],
        )

    return check


# On passages, from which everything is made: nothing reads quarantined_rows, so a check there would block nothing. It
# does not wait for queries and judgments, whose own checks would keep it from running: one step makes all four tables.
@dg.asset_check(
    asset=keys.PASSAGES,
    additional_deps=[keys.QUARANTINED_ROWS],
    blocking=True,
)
def rejected_share(deployment: Deployment) -> dg.AssetCheckResult:
    """Refused rows are at most corpus.max_rejected_share of the documents, of the queries and of the judgments."""
    from models.corpus.integrity import find_rejected_rows

    limit = deployment.settings().corpus.max_rejected_share
    tables = {name: deployment.store().require(f"{keys.CORPUS}/{name}") for name in TABLES}
    rejected = find_rejected_rows(deployment.store(), tables)
    return check_result(
        rejected["share"] <= limit,
        f"{rejected['share']:.1%} of the rows of the worst table were refused; {limit:.1%} are allowed.",
        value=rejected["share"],
        threshold=limit,
        violations=rejected["rows"],
        examples=rejected["examples"],
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    *(contract_check(asset, table, name) for asset, table, name in CONTRACTS),
    rejected_share,
)
