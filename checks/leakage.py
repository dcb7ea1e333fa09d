"""What must hold between tables, as blocking checks: references, disjoint splits, no evaluation query in training, not
even reworded."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import check_result
from models.store.artifacts import Artifact, ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

_PASSAGES = (keys.PASSAGES, "passages.parquet")
_QUERIES = (keys.QUERIES, "queries.parquet")
_JUDGMENTS = (keys.JUDGMENTS, "judgments.parquet")

_MAX_EXAMPLES = 20


@dg.asset_check(
    asset=keys.JUDGMENTS,
    additional_deps=[keys.PASSAGES, keys.QUERIES],
    blocking=True,
)
def references_resolve(deployment: Deployment) -> dg.AssetCheckResult:
    """Every judgment names a query and a document of the corpus."""
    from models.corpus.integrity import unresolved_references

    found = _find(deployment, "references_resolve", unresolved_references, _JUDGMENTS, _QUERIES, _PASSAGES)
    return _none_allowed(found, "judgments name a query or document that does not exist")


@dg.asset_check(
    asset=keys.QUERIES,
    blocking=True,
)
def splits_are_disjoint(deployment: Deployment) -> dg.AssetCheckResult:
    """No query text stands in two splits, after case, spaces and end punctuation are normalized."""
    from models.corpus.splits import repeated_texts

    found = _find(deployment, "splits_are_disjoint", repeated_texts, _QUERIES)
    return _none_allowed(found, "queries have the text of a query in another split")


@dg.asset_check(
    asset=keys.TRAINING_EXAMPLES,
    additional_deps=[keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS],
    blocking=True,
)
def no_evaluation_query_in_training(deployment: Deployment) -> dg.AssetCheckResult:
    """No training query is in the evaluation set or nearly repeats one that is: looked for in the training examples
    themselves, whatever was excluded before."""
    settings, store = deployment.settings().training, deployment.store()
    versions = [
        store.require(keys.artifact_name(key))
        for key in (keys.TRAINING_EXAMPLES, keys.EVALUATION_SET, keys.CANDIDATES, keys.PASSAGE_EMBEDDINGS)
    ]
    limits = {"overlap": settings.leak_overlap, "cosine": settings.leak_cosine}

    def compute() -> dict[str, Any]:
        from models.training.leakage import trained_and_evaluated

        found = trained_and_evaluated(*versions, min_overlap=limits["overlap"], min_cosine=limits["cosine"])
        return {"count": len(found), "examples": found.head(_MAX_EXAMPLES).to_dict("records")}

    found = _remembered(store, "no_evaluation_query_in_training", versions, compute, limits)
    return _none_allowed(found, "training queries are evaluated too, as they stand or reworded")


def _find(
    deployment: Deployment, name: str, rule: "Callable[..., pd.DataFrame]", *tables: tuple[dg.AssetKey, str]
) -> dict[str, Any]:
    """Offending rows of `rule` on the current tables, computed once per content and code."""
    store = deployment.store()
    artifacts = [(store.require(keys.artifact_name(key)), file) for key, file in tables]

    def compute() -> dict[str, Any]:
        found = rule(*(artifact.read_table(file) for artifact, file in artifacts))
        return {"count": len(found), "examples": found.head(_MAX_EXAMPLES).to_dict("records")}

    return _remembered(store, name, [artifact for artifact, _ in artifacts], compute)


def _remembered(
    store: ArtifactStore,
    name: str,
    artifacts: Sequence[Artifact],
    compute: Callable[[], dict[str, Any]],
    limits: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    from models.store.code_version import code_version

    versions = {artifact.asset: artifact.data_version for artifact in artifacts}
    code = code_version(
        "corpus.integrity",
        "corpus.splits",
        "training.leakage",
        "text.near_duplicates",
        "retrieval.lexical_index",
        "text.tokenize",
    )
    return store.remember("leakage", {"rule": name, "inputs": versions, "code": code, **(limits or {})}, compute)


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
