"""The champion on the current evaluation set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.cascade.offline import rerank
from models.cross_encoder.candidate_scores import score_candidates
from models.cross_encoder.engines import load_engines, model_folders
from models.evaluation.evaluation_set import split_of
from models.evaluation.report import evaluate_systems
from models.release.bundle import Bundle
from models.release.steps import CHAMPION_EVALUATION
from models.settings import EvaluationSettings, Settings
from models.store.asset_names import RELEASE_CANDIDATE
from models.store.durable_files import canonical_json
from models.store.tables import write_table

if TYPE_CHECKING:
    from models.records.ledger import Release
    from models.store.artifacts import Artifact, ArtifactStore


def make_champion_evaluation(
    store: ArtifactStore,
    settings: Settings,
    champion: Release | None,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
) -> Artifact:
    """The champion's numbers on the evaluation set; without a champion, that there is none."""
    inputs = (evaluation_set, passages, candidates)
    bundle = None if champion is None else store.open(RELEASE_CANDIDATE, champion.bundle_version)
    return CHAMPION_EVALUATION.get_or_create(
        store,
        settings,
        partial(evaluate_champion, bundle, *inputs, settings.evaluation),
        inputs=inputs,
        outside={"champion": champion.bundle_version if champion else ""},
    )


def evaluate_champion(
    bundle: Artifact | None,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    settings: EvaluationSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write champion.json and, with a champion, per_query.parquet of its `tiered` system on the current evaluation set.

    Its stored numbers are taken when evaluation set and candidates are those it was evaluated on; otherwise its models
    score the current candidates.
    """
    if bundle is None:
        (folder / "champion.json").write_bytes(canonical_json({"champion": None}))
        return {"champion": "none"}
    champion = Bundle.open(bundle)
    versions = champion.facts.versions
    same = (
        versions["evaluation_set"] == evaluation_set.data_version and versions["candidates"] == candidates.data_version
    )
    if same:
        per_query = bundle.read_table("evaluation/per_query.parquet")
    else:
        bundle.verify()
        test, judgments = split_of(evaluation_set, "test")
        scored = score_candidates(
            candidates.read_table("candidates.parquet"),
            test,
            passages.read_table("passages.parquet"),
            load_engines(bundle.folder / "engines", model_folders(bundle.folder), champion.facts.max_tokens),
        )
        stages = candidates.read_table("first_stage.parquet")
        hybrid = stages[(stages["system"] == "hybrid") & stages["query_id"].isin(test["query_id"])].drop(
            columns="system"
        )
        rankings = {
            "hybrid": hybrid,
            "tiered": rerank(scored.table, champion.calibration, champion.facts.settings.tiers)["tiered"],
        }
        per_query = evaluate_systems(rankings, judgments, dict.fromkeys(rankings, 0.0), settings).per_query
    write_table(per_query[per_query["system"] == "tiered"].reset_index(drop=True), folder / "per_query.parquet")
    (folder / "champion.json").write_bytes(
        canonical_json(
            {"champion": bundle.data_version, "evaluation_set": evaluation_set.data_version, "rescored": not same}
        )
    )
    return {"champion": bundle.data_version, "rescored": int(not same)}
