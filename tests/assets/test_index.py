"""The corpus and index assets, materialized as `refresh_index` does while a source changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
import pytest
from safetensors.numpy import load_file, save_file

from assets import corpus, index
from assets.resources import ArtifactIOManager
from checks.index import recall
from models.retrieval.retriever import HybridRetriever, open_retriever
from models.store.artifacts import Artifact, ArtifactStore
from tests.deployments import use_home
from tests.handbook import handbook, write_encoder, write_source

pytestmark = pytest.mark.heavy

ASSETS = (
    "corpus/passages", "index/passage_embeddings", "index/dense_index", "index/lexical_index", "index/first_stage",
    "index/candidates",
)  # fmt: skip

Refresh = Callable[..., dict[str, Artifact]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture
def refresh(tmp_path: Path, source: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Refresh:
    """A function that materializes corpus and index over some documents; the artifacts by name."""
    instance = dg.DagsterInstance.ephemeral()

    def run(
        documents: Mapping[str, str], home: str = "home", path: Path = source, **settings: str
    ) -> dict[str, Artifact]:
        write_source(path, documents)
        (tmp_path / home).mkdir(exist_ok=True)
        corpus_settings = {"CORPUS__SOURCE": "beir", "CORPUS__PATH": str(path)}
        chosen = corpus_settings | {"ENCODER__MODEL": str(encoder), "TRAINING__BASE_MODEL": str(encoder)} | settings
        deployment = use_home(tmp_path / home, monkeypatch, **chosen)
        result = dg.materialize(
            [*corpus.ASSETS, *index.ASSETS, recall],
            instance=instance,
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
        )
        assert result.success
        built = [result.output_for_node(name) for name in ("index__passage_embeddings", "index__dense_index")]
        store = deployment.store()
        observed = {name: store.require(name) for name in ASSETS}
        assert [item.data_version for item in built] == [observed[item.asset].data_version for item in built]
        return observed

    return run


def versions(result: Mapping[str, Artifact]) -> dict[str, str]:
    return {name: artifact.data_version for name, artifact in result.items()}


def counts(result: Mapping[str, Artifact]) -> tuple[int, ...]:
    summary = result["index/passage_embeddings"].summary
    return tuple(int(summary[name]) for name in ("embedded", "taken_over", "removed"))


def embedded(result: Mapping[str, Artifact]) -> tuple[int, ...]:
    """Queries that the first stage and the candidates had embedded."""
    return tuple(int(result[f"index/{name}"].summary["queries_embedded"]) for name in ("first_stage", "candidates"))


def retriever_of(result: Mapping[str, Artifact]) -> HybridRetriever:
    from models.settings import load_settings

    parts = ("corpus/passages", "index/passage_embeddings", "index/dense_index", "index/lexical_index")
    passages, embeddings, dense, lexical = (result[name] for name in parts)
    return open_retriever(passages, embeddings, dense, lexical, load_settings().index)


def test_a_refresh_embeds_what_changed_and_equals_a_build_from_nothing(refresh: Refresh) -> None:
    documents = handbook()
    first = refresh(documents)
    assert counts(first) == (16, 0, 0)
    assert embedded(first) == (3, 13), "the first stage is chosen on the three of the development split"

    edited = {**documents, "03-grinder": "The grinder is cleaned with rice and a soft brush."}
    second = refresh(edited)
    assert counts(second) == (1, 15, 1)
    assert embedded(second) == (0, 0)
    changed = {name for name in ASSETS if versions(first)[name] != versions(second)[name]}
    assert changed == {*ASSETS} - {"index/first_stage"}, "of three queries nothing is learned"
    assert versions(refresh(edited, home="another")) == versions(second)


def test_a_removed_document_is_gone_from_what_is_retrieved(refresh: Refresh) -> None:
    documents = handbook()
    before = refresh(documents)
    question = "how do I clean the pump"
    assert retriever_of(before).retrieve(question, 5)[0].document_id == "02-pump"

    del documents["02-pump"]
    after = refresh(documents)
    assert counts(after) == (0, 15, 1)
    result = retriever_of(after).retrieve(question, 50)
    assert len(result) == 15
    assert "02-pump" not in {item.document_id for item in result}
    assert not any("02-pump" in path.read_text(errors="ignore") for path in after["index/dense_index"].folder.iterdir())


def test_an_index_is_replaced_by_pointer_and_who_has_it_open_goes_on(refresh: Refresh) -> None:
    documents = handbook()
    before = refresh(documents)
    opened = retriever_of(before)
    del documents["02-pump"]
    after = refresh(documents)
    for name in ("index/dense_index", "index/lexical_index"):
        before[name].verify()
        assert before[name].folder != after[name].folder
        assert all(path.stat().st_mode & 0o222 == 0 for path in before[name].folder.glob("*.npy"))
    question = "how do I clean the pump"
    assert opened.retrieve(question, 3)[0].document_id == "02-pump"
    assert "02-pump" not in {item.document_id for item in retriever_of(after).retrieve(question, 50)}


def test_an_older_state_of_the_source_brings_back_its_artifacts_at_once(
    refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = handbook()
    monday = refresh(documents, path=tmp_path / "monday")
    documents["02-pump"] = "The pump cleans itself."
    tuesday = refresh(documents, path=tmp_path / "tuesday")
    assert versions(monday) != versions(tuesday)

    def made_anew(*_: object) -> None:
        raise AssertionError("something was made anew")

    monkeypatch.setattr(ArtifactStore, "_commit", made_anew)
    again = refresh(handbook(), path=tmp_path / "monday")
    assert versions(again) == versions(monday)
    assert retriever_of(again).retrieve("how do I clean the pump", 3)[0].document_id == "02-pump"


def test_another_chunking_or_length_of_the_encoder_is_another_build(refresh: Refresh) -> None:
    documents = {**handbook(), "99-rules": " ".join(f"Rule {number} of the house is strict." for number in range(20))}
    whole = refresh(documents)
    shorter = refresh(documents, ENCODER__MAX_TOKENS="16")
    assert counts(shorter) == (17, 0, 0)
    assert versions(whole)["corpus/passages"] == versions(shorter)["corpus/passages"]
    pieces = refresh(documents, CORPUS__PASSAGE_TOKENS="32", CORPUS__OVERLAP_TOKENS="0")
    assert counts(pieces) == (len(retriever_of(pieces).passage_ids) - 16, 16, 1)
    assert counts(pieces)[0] > 3


@pytest.mark.parametrize("setting", [{"ENCODER__QUERY_PREFIX": "query: "}, {"ENCODER__DIMENSIONS": "64"}])
def test_another_way_to_embed_queries_takes_no_vector_of_theirs_over(refresh: Refresh, setting: dict[str, str]) -> None:
    documents = dict(list(handbook().items())[:12])
    before = embedded(refresh(documents))
    assert embedded(refresh(documents, **setting)) == before
    assert all(before)


def test_other_weights_of_the_encoder_are_another_build_and_the_old_ones_are_not_forgotten(
    refresh: Refresh, encoder: Path, tmp_path: Path
) -> None:
    first = refresh(handbook())
    weights = tmp_path / "weights"
    shutil.copytree(first["index/passage_embeddings"].folder / "encoder", weights, copy_function=shutil.copyfile)
    tensors = load_file(weights / "model.safetensors")
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    save_file({**tensors, name: tensors[name] * 0.9}, weights / "model.safetensors", metadata={"format": "pt"})
    other = refresh(handbook(), ENCODER__MODEL=str(weights))
    assert counts(other) == (16, 0, 0)
    assert versions(other)["corpus/passages"] == versions(first)["corpus/passages"]
    assert versions(other)["index/dense_index"] != versions(first)["index/dense_index"]
    assert versions(other)["index/lexical_index"] == versions(first)["index/lexical_index"]
    again = refresh(handbook(), ENCODER__MODEL=str(encoder))
    assert versions(again) == versions(first)


def test_an_approximate_index_is_carried_on_and_checked(refresh: Refresh) -> None:
    documents = {**handbook(), **{f"x{number:04}": f"Note {number}." for number in range(1100)}}
    chosen = {"INDEX__KIND": "hnsw", "INDEX__HNSW_EF_CONSTRUCTION": "40"}
    first = refresh(documents, **chosen)["index/dense_index"]
    assert (first.summary["kind"], first.summary["carried"]) == ("hnsw", False)
    assert first.summary["recall"] >= 0.98

    del documents["x0007"]
    documents["x0008"] = "Another note."
    second = refresh(documents, **chosen)
    summary = second["index/dense_index"].summary
    assert (summary["carried"], summary["tombstones"], summary["additions"]) == (True, 2, 1)
    same = (item.path("approximate.faiss").stat().st_ino for item in (first, second["index/dense_index"]))
    assert next(same) == next(same)
    result = retriever_of(second).retrieve("note 7", 1117)
    assert "x0007" not in {item.document_id for item in result}
    assert retriever_of(second).retrieve("Another note.", 1)[0].document_id == "x0008"


def test_a_past_version_of_the_corpus_is_made_current_again_without_embedding(
    refresh: Refresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = refresh(handbook())
    second = refresh({**handbook(), "02-pump": "The pump cleans itself."})
    version = first["corpus/passages"].data_version

    def embeds(*_: object, **__: object) -> None:
        raise AssertionError("something was embedded")

    with monkeypatch.context() as changed:
        changed.setattr("models.retrieval.encoder.Encoder._encode", embeds)
        again = refresh({"02-pump": "The source says something else by now."}, CORPUS__VERSION=version[:10])
    assert versions(again) == versions(first) != versions(second)
    assert retriever_of(again).retrieve("how do I clean the pump", 3)[0].document_id == "02-pump"

    monkeypatch.delenv("RERANKOPS_CORPUS__VERSION")
    newest = refresh({**handbook(), "02-pump": "The pump cleans itself."})
    assert versions(newest) == versions(second)


def test_a_backfill_that_fails_leaves_the_deployment_as_it_was(
    refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = refresh(handbook())
    second = refresh({**handbook(), "02-pump": "The pump cleans itself."})

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    # Made with another setting, so that it is not only looked up.
    chosen = {"CORPUS__VERSION": first["corpus/passages"].data_version, "INDEX__BM25_K1": "1.5"}
    with monkeypatch.context() as changed:
        changed.setattr("models.retrieval.lexical_index.LexicalIndex.build", fails)
        with pytest.raises(RuntimeError, match="the disk is full"):
            refresh(handbook(), **chosen)
    store = ArtifactStore(str(tmp_path / "home" / "artifacts"), tmp_path / "cache")
    assert {name: store.require(name).data_version for name in ASSETS} == versions(second)
    assert not list((tmp_path / "home" / "artifacts" / "runs").rglob("*.json"))

    third = refresh(handbook(), **chosen)
    same = versions(first).keys() - {"index/lexical_index", "index/candidates"}
    assert {name: versions(third)[name] for name in same} == {name: versions(first)[name] for name in same}
    assert versions(third)["index/lexical_index"] not in (versions(first)["index/lexical_index"],)
    assert counts(third) == (16, 0, 0)
