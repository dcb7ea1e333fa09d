"""Rerankers of somebody else, not trained here: calibrated, evaluated, bundled and served by a process of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cohere
import numpy as np
import pytest

from models.contracts.tiers import MODEL_TIERS
from models.cross_encoder.scorer import CrossEncoderScorer
from models.records.database import Database
from models.records.ledger import Ledger
from models.serving.loaded_bundle import load_bundle
from models.store.artifacts import Artifact
from tests.service_process import fork_service
from tests.small_bundle import BUDGET_MS, Candidate, Small, make_candidate, put_in_service
from tests.tiny_architectures import write_architecture

pytestmark = pytest.mark.heavy

TAKEN = {"large": "qwen3-yes-no", "compact": "modernbert"}


@pytest.fixture(scope="module")
def candidate(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A release candidate of a decoder asked for yes or no, and an encoder of another architecture as compact model."""
    from models.training.fine_tuning import train_large, train_student

    weights = {tier: write_architecture(name, tmp_path_factory.mktemp(name)) for tier, name in TAKEN.items()}
    training = small.settings.training.model_copy(
        update={
            "base_model": str(weights["large"]),
            "compact_base_model": str(weights["compact"]),
            "large_pairs": 0,
            "compact_pairs": 0,
            "frozen_layers": 0,
        }
    )
    engine = small.settings.engine.model_copy(update={"kind": "auto", "min_kendall_tau": 0.5, "max_ndcg_loss": 1.0})
    settings = small.settings.model_copy(update={"training": training, "engine": engine})
    examples = small.artifacts["training/training_examples"].read_table("training_examples.parquet")

    def take(tier: str, folder: Path) -> dict[str, Any]:
        if tier == "large":
            return train_large(examples, training, folder).to_dict()
        return train_student(tier, examples, models["large"].folder, training, folder).to_dict()

    models: dict[str, Artifact] = {}
    for tier in reversed(MODEL_TIERS):
        models[tier.name] = small.store.get_or_create(
            tier.asset, code_version="zero-shot", inputs={}, settings={}, build=partial(take, tier.name)
        )
    return make_candidate(small.store, settings, small.artifacts, models)


def test_it_scores_as_the_weights_that_were_taken_do(candidate: Candidate, small: Small) -> None:
    for tier, artifact in candidate.rerankers.items():
        assert artifact.summary["steps"] == artifact.summary["pairs"] == 0
        logits = CrossEncoderScorer.load(artifact.folder, 64).logits([("how", "so"), ("how is it", "It is so.")])
        assert len(np.unique(logits)) == 2, tier


def test_it_is_served_to_the_cohere_client_as_it_was_evaluated(
    candidate: Candidate, small: Small, tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'rerankops.db'}")
    database.migrate()
    put_in_service(Ledger(database), candidate, "7")
    database.close()
    documents = ["Wash the filter with warm water.", "Mice stay away.", "Open the main valve of the loom."]
    place = {"STORAGE__ARTIFACTS": small.settings.artifact_root, "TIERS__BUDGET_MS": str(BUDGET_MS)}
    with fork_service(tmp_path, **place) as served, cohere.ClientV2(base_url=served.url, api_key=served.key) as client:
        answer = client.rerank(model="champion", query="how do I clean the water filter", documents=documents)
    assert sorted(result.index for result in answer.results) == [0, 1, 2]
    assert len({result.relevance_score for result in answer.results}) == 3
    loaded = load_bundle(candidate.bundle)
    try:
        again = loaded.reproduce_golden(small.settings.gate.max_golden_difference)
    finally:
        loaded.close()
    assert (again.queries, again.order_equal) == (4, True)
    assert again.max_difference < small.settings.gate.max_golden_difference
