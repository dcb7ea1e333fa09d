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

from pathlib import Path
from typing import Any

from models.release.golden import golden_queries
from models.release.model_card import CARD, model_card
from models.release.parts import BundleParts
from models.settings import Settings
from models.store.artifacts import Artifact
from models.store.durable_files import canonical_json, digest_json, link_or_copy

BUNDLE = "bundle.json"


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


def _link_all(artifact: Artifact, folder: Path, below: str = "") -> None:
    for name in artifact.manifest.files:
        if name.startswith(below):
            link_or_copy(artifact.path(name), folder / name)
