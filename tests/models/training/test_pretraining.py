"""A general start from three small corpora, with thin models: what trains, and what the lifecycle makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import ModelFileError, SettingsError, SourceError
from models.settings import Settings, load_settings
from models.store.artifacts import ArtifactStore
from models.training.distilled_reranker import make_distilled_reranker
from models.training.large_reranker import make_large_reranker
from models.training.pretraining import FACTS, GeneralStart, corpora_settings, pretrain, pretraining_store
from models.weights import resolve_weights
from tests.pretraining_corpora import pretraining_settings, write_corpora, write_encoder
from tests.tiny_cross_encoder import PICKLES, weights_of, write_base

pytestmark = pytest.mark.heavy

Made = tuple[Mapping[str, Any], Settings, GeneralStart]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("general")


@pytest.fixture(scope="module")
def made(home: Path) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RERANKOPS_HOME", str(home / "home"))
        corpora = write_corpora(home)
        values = pretraining_settings(corpora, write_base(home / "base"), write_encoder(corpora, home / "encoder"))
        settings = load_settings(values=values, environ={})
        return values, settings, pretrain(settings)


@pytest.fixture(autouse=True)
def _same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANKOPS_HOME", str(home / "home"))


def test_only_training_queries_of_every_corpus_train(made: Made) -> None:
    _, settings, start = made
    examples = start.mixture.read_table("training_examples.parquet")
    names = examples["query_id"].str.partition("/")[0]
    assert set(names) == {"handbook", "docs", "pages"}
    store = pretraining_store(settings)
    splits = {}
    for table in store.made("corpus/queries"):
        queries = table.read_table("queries.parquet")
        splits |= dict(zip(queries["query_id"], queries["split"], strict=True))
    trained = examples["query_id"].str.partition("/")[2]
    assert {splits[name] for name in trained} == {"train"}
    assert all(trained[names == "pages"].str.startswith("pseudo/")), "queries from the text where nothing is judged"
    assert not any(trained[names == "handbook"].str.startswith("pseudo/"))
    assert set(examples["kind"]) <= {"positive", "graded", "hard"}


def test_the_result_is_a_folder_with_digests_that_settings_may_name(made: Made, home: Path, tmp_path: Path) -> None:
    _, _, start = made
    assert start.folder == home / "home" / "general"
    facts = json.loads((start.folder / FACTS).read_text())
    assert facts["corpora"].keys() == {"handbook", "docs", "pages"}
    assert facts["models"]["large"]["pairs"] <= 120
    assert facts["models"]["compact"]["pairs"] <= 60
    assert not [path for path in start.folder.rglob("*") if path.suffix in PICKLES]
    copied = shutil.copytree(start.folder, tmp_path / "copied")
    for tier in ("large", "compact"):
        assert resolve_weights(str(copied / tier)) == copied / tier
    weights = copied / "large" / "model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match=r"model\.safetensors is not the file that the model was made with"):
        resolve_weights(str(copied / "large"))
    (copied / "compact" / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        resolve_weights(str(copied / "compact"))


def test_the_lifecycle_takes_it_as_it_is_or_trains_on(made: Made) -> None:
    _, settings, start = made
    store = ArtifactStore(str(settings.home / "lifecycle"), settings.home / "cache")

    def rerankers(pairs: int) -> list[Path]:
        start_of = {"base_model": str(start.folder / "large"), "compact_base_model": str(start.folder / "compact")}
        changes = {**start_of, "large_pairs": pairs, "compact_pairs": pairs}
        own = settings.model_copy(update={"training": settings.training.model_copy(update=changes)})
        large = make_large_reranker(store, own, start.mixture)
        return [
            large.folder,
            make_distilled_reranker(store, own, "compact", start.mixture, large, start.mixture).folder,
        ]

    for tier, kept, trained in zip(("large", "compact"), rerankers(0), rerankers(30), strict=True):
        before, after, further = (weights_of(folder) for folder in (start.folder / tier, kept, trained))
        assert before.keys() == after.keys() == further.keys()
        assert all(torch.equal(before[name], after[name]) for name in before), f"{tier} as it is"
        assert any(not torch.equal(before[name], further[name]) for name in before), f"{tier} trained on"


def test_what_was_prepared_once_is_not_prepared_again(made: Made) -> None:
    values, settings, start = made
    store = pretraining_store(settings)

    def steps() -> dict[str, int]:
        assets = ("corpus/passages", "index/passage_embeddings", "training/training_examples", "training/mixture")
        return {asset: len(store.made(asset)) for asset in assets}

    before = steps()
    again = pretrain(settings)
    assert all(model.reused for model in again.models.values())
    assert steps() == before
    changes = {"pretraining.exclude": ["docs"], "pretraining.folder": str(settings.home / "without")}
    without = pretrain(load_settings(values={**values, **changes}, environ={}))
    assert steps() == {**before, "training/mixture": before["training/mixture"] + 1}
    assert without.facts["corpora"].keys() == {"handbook", "pages"}
    assert without.models["large"].data_version != start.models["large"].data_version


def test_wrong_names_and_folders_are_refused_before_anything_is_read(made: Made, tmp_path: Path) -> None:
    values, settings, start = made

    def attempt(**changes: Any) -> None:
        pretrain(load_settings(values={**values, **{f"pretraining.{k}": v for k, v in changes.items()}}, environ={}))

    with pytest.raises(SettingsError, match=r"pretraining\.exclude: dosc is not among the corpora") as refused:
        attempt(exclude=["dosc"])
    assert "handbook, docs, pages" in refused.value.hint
    with pytest.raises(SettingsError, match="no corpus is left"):
        attempt(exclude=["handbook", "docs", "pages"])
    with pytest.raises(SettingsError, match=r"pretraining\.corpora: .*docs\.sorce"):
        attempt(corpora={"docs": {"sorce": "files"}})
    with pytest.raises(SourceError, match="nowhere"):
        attempt(corpora={"docs": {"source": "beir", "path": str(tmp_path / "nowhere")}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="no general start"):
        attempt(folder=str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert (start.folder / FACTS).is_file()
    assert corpora_settings(Settings()).keys() == {"python-docs", "man-pages"}
    assert corpora_settings(settings)["docs"].corpus.files.documents == "documents.jsonl"
