"""What must hold between tables, as blocking checks: references, disjoint splits, no evaluation query in training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result

if TYPE_CHECKING:
    import pandas as pd

_PASSAGES = (keys.PASSAGES, "passages.parquet")
_QUERIES = (keys.QUERIES, "queries.parquet")
_JUDGMENTS = (keys.JUDGMENTS, "judgments.parquet")
_TRAINING_EXAMPLES = (keys.TRAINING_EXAMPLES, "training_examples.parquet")
_EVALUATION_QUERIES = (keys.EVALUATION_SET, "queries.parquet")

_MAX_EXAMPLES = 20


@dg.asset_check(
    asset=keys.JUDGMENTS,
    additional_deps=[keys.PASSAGES, keys.QUERIES],
    blocking=True,
)
def references_resolve(deployment: Deployment) -> dg.AssetCheckResult:
    """Every judgment names a query and a document of the corpus."""
    from models.integrity import unresolved_references

    found = _find(deployment, "references_resolve", unresolved_references, _JUDGMENTS, _QUERIES, _PASSAGES)
    return _none_allowed(found, "judgments name a query or document that does not exist")


@dg.asset_check(
    asset=keys.QUERIES,
    blocking=True,
)
def splits_are_disjoint(deployment: Deployment) -> dg.AssetCheckResult:
    """No query text stands in two splits, after case, spaces and end punctuation are normalized."""
    from models.splits import repeated_texts

    found = _find(deployment, "splits_are_disjoint", repeated_texts, _QUERIES)
    return _none_allowed(found, "queries have the text of a query in another split")


@dg.asset_check(
    asset=keys.TRAINING_EXAMPLES,
    additional_deps=[keys.EVALUATION_SET],
    blocking=True,
)
def no_evaluation_query_in_training(deployment: Deployment) -> dg.AssetCheckResult:
    """No training query is in the evaluation set, by id or by normalized text."""
    from models.integrity import evaluated_in_training

    found = _find(
        deployment, "no_evaluation_query_in_training", evaluated_in_training, _TRAINING_EXAMPLES, _EVALUATION_QUERIES
    )
    return _none_allowed(found, "training queries are evaluated too")


def _find(
    deployment: Deployment, name: str, rule: "Callable[..., pd.DataFrame]", *tables: tuple[dg.AssetKey, str]
) -> dict[str, Any]:
    """Offending rows of `rule` on the current tables, computed once per content and code."""
    from models.code_version import code_version

    store = deployment.store()
    artifacts = [(store.require(keys.artifact_name(key)), file) for key, file in tables]

    def compute() -> dict[str, Any]:
        found = rule(*(artifact.read_table(file) for artifact, file in artifacts))
        return {"count": len(found), "examples": found.head(_MAX_EXAMPLES).to_dict("records")}

    versions = {artifact.asset: artifact.data_version for artifact, _ in artifacts}
    key = {"rule": name, "inputs": versions, "code": code_version("integrity", "splits")}
    return store.remember("leakage", key, compute)


def _none_allowed(found: Mapping[str, Any], what: str) -> dg.AssetCheckResult:
    count = int(found["count"])
    return check_result(
        count == 0, f"{count} {what}.", value=count, threshold=0, violations=count, examples=found["examples"]
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    references_resolve,
    splits_are_disjoint,
    no_evaluation_query_in_training,
)
