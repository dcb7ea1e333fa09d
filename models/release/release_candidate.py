"""The serving bundle as an artifact: assembled from the artifacts that it is made of."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from models.corpus.mapped_passages import write_mapped_passages
from models.release.bundle import CALIBRATION_FILE, FACTS_FILE, GOLDEN_FILE, BundleFacts, BundleSettings
from models.release.golden import golden_queries
from models.release.model_card import CARD, model_card
from models.release.steps import RELEASE_CANDIDATE
from models.retrieval.fusion import FIRST_STAGE_FILE
from models.settings import chosen
from models.store.durable_files import canonical_json, digest_json, link_or_copy
from models.store.provenance import require_one_origin

if TYPE_CHECKING:
    from models.release.parts import BundleParts
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


def make_release_candidate(
    store: ArtifactStore,
    settings: Settings,
    parts: BundleParts,
    scored_candidates: Artifact,
    corpus_defaults: Artifact | None = None,
) -> Artifact:
    """The bundle of `parts`, with all the settings that they were made with; its card says what of these
    `corpus_defaults` has chosen.

    Raises `ArtifactError` where the parts were not made from each other, or with different settings. The scored
    candidates are no part, but calibration and evaluation go back to the models through them.
    """
    inputs = parts.artifacts()
    made_with = require_one_origin((*inputs, scored_candidates), RELEASE_CANDIDATE.values(settings))
    return RELEASE_CANDIDATE.get_or_create(
        store,
        settings,
        partial(write_bundle, parts, settings, corpus_defaults=corpus_defaults),
        inputs=inputs if corpus_defaults is None else (*inputs, corpus_defaults),
        values=made_with,
    )


def index_version(dense: str, lexical: str, first_stage: str) -> str:
    """One version for what retrieves: both indexes, and the order of what they bring."""
    return digest_json([dense, lexical, first_stage])[:24]


def write_bundle(
    parts: BundleParts, settings: Settings, folder: Path, corpus_defaults: Artifact | None = None
) -> dict[str, str]:
    """Assemble the bundle of `models.release.bundle` in `folder`; return the versions of the corpus and the indexes.

    Files of artifacts are hard-linked where the file system can.
    """
    links = {
        "dense_index": parts.dense_index,
        "lexical_index": parts.lexical_index,
        **parts.rerankers,
        "engines": parts.scoring_engines,
    }
    for name, artifact in links.items():
        _link_all(artifact, folder / name)
    _link_all(parts.passage_embeddings, folder, below="encoder/")
    write_mapped_passages(parts.passages.path("passages.parquet"), folder)
    link_or_copy(parts.first_stage.path(FIRST_STAGE_FILE), folder / FIRST_STAGE_FILE)
    link_or_copy(parts.score_calibration.path(CALIBRATION_FILE), folder / CALIBRATION_FILE)
    # It has measured times, which shall not make another bundle of the same models.
    link_or_copy(parts.offline_evaluation.path("report/evaluation.json"), folder / "report" / "evaluation.json")
    queries = parts.evaluation_set.read_table("queries.parquet")
    golden = golden_queries(
        queries,
        parts.offline_evaluation.read_table("rankings.parquet"),
        parts.passages.read_table("passages.parquet", ["passage_id", "access"]),
        settings.serving.golden_queries,
    )
    (folder / GOLDEN_FILE).write_bytes(canonical_json([asdict(query) for query in golden]))
    versions = parts.versions()
    facts = BundleFacts(
        corpus_version=versions["passages"],
        index_version=index_version(*(versions[name] for name in ("dense_index", "lexical_index", "first_stage"))),
        versions=versions,
        max_tokens=chosen(settings.training.max_tokens),
        candidates=chosen(settings.evaluation.candidates),
        settings=BundleSettings(
            encoder=settings.encoder,
            index=settings.index,
            tiers=settings.tiers,
            generator=settings.generator.model_dump(include={"passages", "max_sentences", "answered_share"}),
            evaluation=settings.evaluation.model_dump(mode="json"),
        ),
    )
    (folder / FACTS_FILE).write_bytes(canonical_json(facts.model_dump(mode="json")))
    (folder / CARD).write_text(model_card(parts, settings, corpus_defaults), encoding="utf-8")
    return {"corpus_version": facts.corpus_version, "index_version": facts.index_version}


def _link_all(artifact: Artifact, folder: Path, below: str = "") -> None:
    for name in artifact.manifest.files:
        if name.startswith(below):
            link_or_copy(artifact.path(name), folder / name)
