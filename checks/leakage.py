"""What must hold between tables, as blocking checks: references, disjoint splits, no evaluation query in training, not
even reworded."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result
from models.store.artifacts import Artifact


@dg.asset_check(
    asset=keys.JUDGMENTS,
    additional_deps=[keys.PASSAGES, keys.QUERIES],
    blocking=True,
)
def references_resolve(deployment: Deployment) -> dg.AssetCheckResult:
    """Every judgment names a query and a document of the corpus."""
    from models.corpus.integrity import find_unresolved

    artifacts = _current(deployment, keys.JUDGMENTS, keys.QUERIES, keys.PASSAGES)
    violations = find_unresolved(deployment.store(), *artifacts)
    return _none_allowed(violations, "judgments name a query or document that does not exist")


@dg.asset_check(
    asset=keys.QUERIES,
    blocking=True,
)
def splits_are_disjoint(deployment: Deployment) -> dg.AssetCheckResult:
    """No query text stands in two splits, after case, spaces and end punctuation are normalized."""
    from models.corpus.integrity import find_repeated

    violations = find_repeated(deployment.store(), *_current(deployment, keys.QUERIES))
    return _none_allowed(violations, "queries have the text of a query in another split")


@dg.asset_check(
    asset=keys.TRAINING_EXAMPLES,
    additional_deps=[keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS],
    blocking=True,
)
def no_evaluation_query_in_training(deployment: Deployment) -> dg.AssetCheckResult:
    """No training query is in the evaluation set or nearly repeats one that is: looked for in the training examples
    themselves, whatever was excluded before."""
    return _none_evaluated(deployment, keys.TRAINING_EXAMPLES, "training queries")


@dg.asset_check(
    asset=keys.LOGGED_LISTS,
    name="no_evaluation_query_in_training",
    additional_deps=[keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS],
    blocking=True,
)
def no_evaluation_query_in_logged_lists(deployment: Deployment) -> dg.AssetCheckResult:
    """No logged query that the compact model learns from is in the evaluation set or nearly repeats one that is: looked
    for in the logged lists themselves, whatever was excluded before."""
    return _none_evaluated(deployment, keys.LOGGED_LISTS, "logged queries")


def _none_evaluated(deployment: Deployment, trained: dg.AssetKey, what: str) -> dg.AssetCheckResult:
    from models.training.leakage import find_leaks

    artifacts = _current(deployment, trained, keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS)
    violations = find_leaks(deployment.store(), deployment.settings(), *artifacts)
    return _none_allowed(violations, f"{what} are evaluated too, as they stand or reworded")


def _current(deployment: Deployment, *asset_keys: dg.AssetKey) -> list[Artifact]:
    store = deployment.store()
    return [store.require(keys.artifact_name(key)) for key in asset_keys]


def _none_allowed(violations: Mapping[str, Any], what: str) -> dg.AssetCheckResult:
    count = int(violations["count"])
    return check_result(
        count == 0, f"{count} {what}.", value=count, threshold=0, violations=count, examples=violations["examples"]
    )


CHECKS: tuple[dg.AssetChecksDefinition, ...] = (
    references_resolve,
    splits_are_disjoint,
    no_evaluation_query_in_training,
    no_evaluation_query_in_logged_lists,
)
