"""The frozen evaluation set: queries of the version before stay as long as they exist; added ones join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from models.corpus.integrity import require_judgments
from models.corpus.splits import evaluation_set
from models.corpus.steps import EVALUATION_SET
from models.settings import EvaluationSettings, Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table

_PREVIOUS = "previous"
"""The input of an evaluation set that is the version before it."""


def make_evaluation_set(
    store: ArtifactStore, settings: Settings, queries: Artifact, judgments: Artifact, passages: Artifact
) -> Artifact:
    """The evaluation set of a corpus, with the queries of the set that it is taken over from."""
    inputs = (queries, judgments, passages)
    version = _taken_over_from(store, settings, inputs)
    previous = store.open(EVALUATION_SET.name, version) if version else None
    return EVALUATION_SET.get_or_create(
        store,
        settings,
        partial(freeze, *inputs, previous, settings.evaluation),
        inputs=inputs,
        outside={_PREVIOUS: version} if version else None,
    )


def freeze(
    queries: Artifact,
    judgments: Artifact,
    passages: Artifact,
    previous: Artifact | None,
    settings: EvaluationSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write queries.parquet and judgments.parquet of the evaluation set; return their counts.

    Raises `SourceError` where no judgment is positive.
    """
    judged = judgments.read_table("judgments.parquet")
    require_judgments(judged)
    tables = evaluation_set(
        queries.read_table("queries.parquet"),
        judged,
        passages.read_table("passages.parquet", ["passage_id", "document_id"]),
        settings.max_dev_queries,
        settings.max_test_queries,
        previous and previous.read_table("queries.parquet"),
    )
    write_table(tables.queries, folder / "queries.parquet")
    write_table(tables.judgments, folder / "judgments.parquet")
    splits = Counter(tables.queries["split"])
    return {
        "dagster/row_count": len(tables.queries),
        "queries_dev": splits["dev"],
        "queries_test": splits["test"],
        "judgments": len(tables.judgments),
    }


def _taken_over_from(store: ArtifactStore, settings: Settings, inputs: Sequence[Artifact]) -> str:
    """The version that the evaluation set takes its queries over from; empty for the first.

    Of a set that was made from these very inputs before, it is the one that it was taken from: no set is taken over
    from itself, and a past version of the corpus gets the set that it had.
    """
    current = store.current(EVALUATION_SET.name)
    if current is None:
        return ""
    wanted = {artifact.asset: artifact.data_version for artifact in inputs}
    earlier = sorted(store.made(EVALUATION_SET.name), key=lambda artifact: artifact.manifest.created_at, reverse=True)
    for manifest in (artifact.manifest for artifact in (current, *earlier)):
        made_from = {asset: version for asset, version in manifest.inputs.items() if asset != _PREVIOUS}
        alike = made_from == wanted and manifest.settings == EVALUATION_SET.values(settings)
        if alike and manifest.code_version == EVALUATION_SET.code_version:
            return manifest.inputs.get(_PREVIOUS, "")
    return current.data_version
