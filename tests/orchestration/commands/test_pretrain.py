"""`rerankops pretrain` as a process: killed and gone on with, one JSON value, and a release of what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.store.artifacts import ArtifactStore
from models.training.pretraining import FACTS
from tests.commands import clean_environment, run_command, started
from tests.docs_corpus import docs_settings, write_docs_corpus
from tests.patience import until
from tests.pretraining_corpora import pretraining_settings, write_corpora, write_encoder
from tests.tiny_cross_encoder import weights_of, write_base

pytestmark = pytest.mark.heavy


def options(values: Mapping[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={_toml(value)}")]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def environment(home: Path) -> dict[str, str]:
    return clean_environment(RERANKOPS_HOME=str(home), OMP_NUM_THREADS="1")


@pytest.mark.slow
def test_a_killed_call_is_gone_on_with_and_its_models_are_released_as_they_are(tmp_path: Path) -> None:
    corpora = write_corpora(tmp_path)
    encoder = write_encoder(corpora, tmp_path / "encoder")
    values = pretraining_settings(corpora, write_base(tmp_path / "base"), encoder, pairs=240)
    arguments = ("pretrain", "--json", *options({**values, "training.checkpoint_minutes": 1e-9}))
    home, whole = tmp_path / "home", tmp_path / "whole"
    with started(arguments, env=environment(home)) as command:
        scratch = home / "pretraining" / "scratch"
        until(lambda: any(scratch.glob("training-large_reranker-*/step-*")) or not command.runs())
        assert command.runs(), command.ended().stderr
    assert not (home / "general").exists()
    store = ArtifactStore(str(home / "pretraining"), home / "cache")
    assert store.made("training/large_reranker") == []
    prepared = {artifact.manifest.created_at for artifact in store.made("index/passage_embeddings")}

    completed = run_command(*arguments, env=environment(home))
    assert completed.returncode == 0, completed.stderr
    assert len(completed.stdout.splitlines()) == 1
    told = json.loads(completed.stdout)
    assert told["folder"] == str(home / "general")
    assert told["corpora"].keys() == {"handbook", "docs", "pages"}
    assert {artifact.manifest.created_at for artifact in store.made("index/passage_embeddings")} == prepared

    undisturbed = run_command(*arguments, env=environment(whole))
    assert undisturbed.returncode == 0, undisturbed.stderr
    for tier in ("large", "compact"):
        first, other = (weights_of(folder / "general" / tier) for folder in (home, whole))
        assert first.keys() == other.keys()
        assert all(first[name].equal(other[name]) for name in first), tier
    facts = [json.loads((folder / "general" / FACTS).read_text()) for folder in (home, whole)]
    assert facts[0] == facts[1]

    write_docs_corpus(tmp_path / "served", documents=130)
    released = run_command(
        "run",
        "--json",
        *options(
            {
                **docs_settings(tmp_path / "served"),
                "preset": "tiny",
                "training.base_model": str(home / "general" / "large"),
                "training.compact_base_model": str(home / "general" / "compact"),
                "training.large_pairs": 0,
                "training.compact_pairs": 0,
                "tiers.models": ["compact", "large"],
                "training.max_tokens": 32,
                "training.frozen_layers": 0,
                "training.compact_layers": [0],
                "encoder.max_tokens": 64,
                "evaluation.candidates": 6,
                "evaluation.resamples": 1000,
                "engine.kind": "torch",
                "objectives.p95_ms": 60_000,
                "objectives.p99_ms": 60_000,
                "tiers.budget_ms": 60_000,
                "serving.candidates": 6,
                "serving.golden_queries": 3,
            }
        ),
        env=environment(home),
    )
    assert released.returncode == 0, released.stderr
    assert json.loads(released.stdout)["outcome"] == "released"
    served = ArtifactStore(str(home / "artifacts"), home / "cache").require("training/large_reranker")
    kept, general = weights_of(served.folder), weights_of(home / "general" / "large")
    assert all(kept[name].equal(general[name]) for name in general), "zero-shot: not one weight has moved"


def test_a_corpus_that_cannot_be_read_is_told_in_one_value(tmp_path: Path) -> None:
    wrong = {"pretraining.corpora": {"mine": {"source": "beir", "path": str(tmp_path / "nowhere")}}}
    completed = run_command("pretrain", "--json", *options(wrong), env=environment(tmp_path / "home"))
    assert completed.returncode == 1
    assert "nowhere" in json.loads(completed.stdout)["error"]
