"""The last accepted version of the corpus: the one that the last released bundle was made from.

A later version is held against it (`models.expectations.validation`), whatever was read in between. The store keeps it
under the name `accepted` beside the current one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from models.errors import ArtifactError
from models.expectations.steps import EXPECTATION_FACTS
from models.expectations.tables import SUITE_OF, facts_of
from models.store.artifacts import Artifact, ArtifactStore

ACCEPTED = "accepted"

_CORPUS = ("corpus/passages", "corpus/queries", "corpus/judgments")
_EVALUATION_SET = "corpus/evaluation_set"


def accept_corpus(store: ArtifactStore, bundle: Artifact) -> bool:
    """Mark the versions that a released bundle was made from as accepted.

    False, and nothing is marked, where the evaluation set was made again since: then it is not known from which.
    """
    evaluation_set = store.require(_EVALUATION_SET)
    made_from = {**evaluation_set.manifest.inputs, _EVALUATION_SET: evaluation_set.data_version}
    used = {name: version for name, version in bundle.manifest.inputs.items() if name in (*_CORPUS, _EVALUATION_SET)}
    if any(made_from[name] != version for name, version in used.items() if name in made_from):
        return False
    versions = {name: made_from[name] for name in _CORPUS if name in made_from}
    if len(versions) < len(_CORPUS):
        return False
    for name, version in versions.items():
        store.point(store.open(name, version), ACCEPTED)
    store.point(evaluation_set, ACCEPTED)
    return True


def accepted_tables(store: ArtifactStore) -> dict[str, Artifact]:
    """The accepted version of each table that has a suite; empty before the first release."""
    try:
        accepted = {name: store.current(name, ACCEPTED) for name in SUITE_OF}
    except ArtifactError:  # deleted since
        return {}
    artifacts = {name: artifact for name, artifact in accepted.items() if artifact is not None}
    return artifacts if len(artifacts) == len(SUITE_OF) else {}


def accepted_facts(store: ArtifactStore, artifact: Artifact) -> dict[str, Any]:
    """`models.expectations.tables.facts` of the accepted version of the asset that `artifact` is a version of.

    Empty where there is none, or it was made with other settings than `artifact`: as passages of another length.
    """
    asset, accepted = artifact.asset, accepted_tables(store)
    if not accepted or accepted[asset].manifest.settings != artifact.manifest.settings:
        return {}
    versions = {name: table.data_version for name, table in accepted.items()}
    key = {"asset": asset, "versions": versions}
    return EXPECTATION_FACTS.remember(store, key, partial(facts_of, asset, accepted))
