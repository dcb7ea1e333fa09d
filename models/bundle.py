# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""The serving bundle: one self-contained folder with everything that a release serves.

bundle.json                 versions, settings and limits
passages.parquet            texts, titles, places, access labels
dense_index/ lexical_index/ encoder/ large/ compact/
engines/                    what computes the scores of both models
calibration.json            the scorers of all tiers
MODEL_CARD.md               what the models are, how they were made, what they do well and where not
golden.json                 queries with the scores that a reloaded bundle must reproduce
evaluation/                 per_query.parquet: what the next candidate is compared with
report/                     evaluation.json, for people: it does not decide the bundle's version
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.artifacts import Artifact
from models.files import canonical_json, digest_json, link_or_copy
from models.model_card import CARD, model_card
from models.settings import Settings

BUNDLE = "bundle.json"
_GOLDEN_DEPTH = 10


@dataclass(frozen=True)
class BundleParts:
    """The artifacts that a bundle is made of."""

    passages: Artifact
    passage_embeddings: Artifact
    dense_index: Artifact
    lexical_index: Artifact
    large_reranker: Artifact
    compact_reranker: Artifact
    scoring_engines: Artifact
    score_calibration: Artifact
    offline_evaluation: Artifact
    evaluation_set: Artifact
    candidates: Artifact

    def versions(self) -> dict[str, str]:
        """Data version of each part, by name."""
        return {name: getattr(self, name).data_version for name in self.__dataclass_fields__}


def index_version(dense: str, lexical: str) -> str:
    """One version for the pair of indexes."""
    return digest_json([dense, lexical])[:24]


def write_bundle(folder: Path, parts: BundleParts, settings: Settings) -> dict[str, Any]:
    """Assemble the bundle in `folder`; files of artifacts are hard-linked where the file system can. Returns
    bundle.json."""
    links = {
        "dense_index": parts.dense_index,
        "lexical_index": parts.lexical_index,
        "large": parts.large_reranker,
        "compact": parts.compact_reranker,
        "engines": parts.scoring_engines,
    }
    for name, artifact in links.items():
        _link_all(artifact, folder / name)
    _link_all(parts.passage_embeddings, folder, below="encoder/")
    link_or_copy(parts.passages.path("passages.parquet"), folder / "passages.parquet")
    link_or_copy(parts.score_calibration.path("calibration.json"), folder / "calibration.json")
    link_or_copy(parts.offline_evaluation.path("per_query.parquet"), folder / "evaluation" / "per_query.parquet")
    # It has measured times, which shall not make another bundle of the same models.
    link_or_copy(parts.offline_evaluation.path("report/evaluation.json"), folder / "report" / "evaluation.json")
    queries = parts.evaluation_set.read_table("queries.parquet")
    golden = golden_queries(
        queries,
        parts.offline_evaluation.read_table("rankings.parquet"),
        parts.passages.read_table("passages.parquet", ["passage_id", "access"]),
        settings.serving.golden_queries,
    )
    (folder / "golden.json").write_bytes(canonical_json(golden))
    versions = parts.versions()
    bundle = {
        "format": 1,
        "corpus_version": versions["passages"],
        "index_version": index_version(versions["dense_index"], versions["lexical_index"]),
        "versions": versions,
        "max_tokens": settings.training.max_tokens,
        "candidates": settings.evaluation.candidates,
        "settings": {
            name: getattr(settings, name).model_dump()
            for name in ("encoder", "index", "tiers", "generator", "evaluation")
        },
    }
    (folder / BUNDLE).write_bytes(canonical_json(bundle))
    (folder / CARD).write_text(model_card(parts, settings), encoding="utf-8")
    return bundle


def golden_queries(
    queries: pd.DataFrame, rankings: pd.DataFrame, passages: pd.DataFrame, count: int
) -> list[dict[str, Any]]:
    """The first `count` test queries with the best ten passages that the offline evaluation gave them.

    `labels` are what a caller must hold to find those passages: the evaluation has no access filter.
    """
    tiered = rankings[(rankings["system"] == "tiered") & (rankings["rank"] <= _GOLDEN_DEPTH)].sort_values("rank")
    test = queries[queries["split"] == "test"].sort_values("query_id").head(count)
    found = dict(iter(tiered.groupby("query_id")))
    access = dict(zip(passages["passage_id"], passages["access"], strict=True))
    return [
        {
            "query_id": query_id,
            "query": text,
            "passage_ids": found[query_id]["passage_id"].tolist(),
            "logits": found[query_id]["score"].tolist(),
            "labels": sorted({str(access[name][0]) for name in found[query_id]["passage_id"] if len(access[name])}),
        }
        for query_id, text in zip(test["query_id"], test["text"], strict=True)
        if query_id in found
    ]


@dataclass(frozen=True)
class GoldenComparison:
    """How far a loaded bundle is from its golden scores (probabilities), and whether it orders them alike."""

    queries: int
    max_difference: float
    order_equal: bool


def compare_golden(
    golden: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, float]], tolerance: float
) -> GoldenComparison:
    """Compare golden entries with `found`, for each the calibrated scores by passage id of the reloaded bundle.

    A passage that is missing counts as a difference of 1. Two passages may change places when their golden scores are
    closer than `tolerance`.
    """
    import numpy as np

    from models.calibration import probability

    largest, order_equal = 0.0, True
    for entry, scores in zip(golden, found, strict=True):
        expected = probability(np.array(entry["logits"], dtype=np.float64))
        actual = np.array([scores.get(passage_id, np.inf) for passage_id in entry["passage_ids"]])
        difference = np.where(np.isfinite(actual), np.abs(actual - expected), 1.0)
        largest = max(largest, float(difference.max(initial=0.0)))
        falls = np.diff(actual) > 0
        order_equal &= not bool(np.any(falls & (-np.diff(expected) > tolerance)))
    return GoldenComparison(len(golden), largest, bool(order_equal and golden))


def _link_all(artifact: Artifact, folder: Path, below: str = "") -> None:
    for name in artifact.manifest.files:
        if name.startswith(below):
            link_or_copy(artifact.path(name), folder / name)
