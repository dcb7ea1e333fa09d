"""What an index must find, as a blocking check."""

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result


@dg.asset_check(asset=keys.DENSE_INDEX, blocking=True)
def recall(deployment: Deployment) -> dg.AssetCheckResult:
    """An approximate index finds `index.min_recall` of the best 100 passages that an exact search finds."""
    from models.retrieval.dense_index import read_facts

    facts = read_facts(deployment.store().require(keys.artifact_name(keys.DENSE_INDEX)).folder)
    wanted = deployment.settings().index.min_recall
    if facts["kind"] == "flat":
        return check_result(True, "Exact: a search compares with every passage.", value=1.0, threshold=wanted)
    description = (
        f"Recall@100 {facts['recall']:.4f} of {facts['kind']} on {facts['recall_queries']} queries, "
        f"at least {wanted} is asked for."
    )
    return check_result(
        facts["recall"] >= wanted, description, value=facts["recall"], threshold=wanted, examples=[facts["effort"]]
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (recall,)
