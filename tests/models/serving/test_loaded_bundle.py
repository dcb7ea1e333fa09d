"""A bundle as it is served: what it retrieves and scores, and what it refuses to load."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.contracts.rows import Passage
from models.contracts.tiers import MODEL_TIERS
from models.corpus.mapped_passages import write_mapped_passages
from models.errors import ArtifactError
from models.release.bundle import Bundle
from models.retrieval.dense_index import write as write_dense
from models.retrieval.encoder import Encoder
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.passage_filter import PassageFilter
from models.serving.loaded_bundle import LoadedBundle, load_bundle, load_release
from models.serving.protocol import ServedVersions, ranking_fault
from models.store.artifacts import Artifact, FileEntry
from models.store.durable_files import digest_file
from models.store.tables import write_rows
from models.text.passage_text import passage_text
from tests.releases import release_of, versions_of
from tests.small_bundle import (
    BUDGET_MS,
    MACHINES,
    QUESTION,
    SECRET,
    STAFF,
    Handbook,
    Small,
    in_force,
    make_candidate,
    weights_file,
)

LOADED = [
    "bundle.json", "passages.arrow", "passage_texts.arrow", "calibration.json", "dense_index/index.faiss",
    "lexical_index/passage_ids.arrow", "encoder/model.safetensors", "large/model.safetensors",
    "compact/tokenizer.json",
]  # fmt: skip


def copied(bundle: Artifact, folder: Path, own: str = "") -> Artifact:
    """The bundle in another folder, its files linked, but for one that is the copy's own."""
    for name in bundle.manifest.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == own:
            shutil.copyfile(bundle.path(name), target)
        else:
            os.link(bundle.path(name), target)
    return replace(bundle, folder=folder)


def admitted(bundle: Artifact, name: str) -> Artifact:
    """The bundle with a manifest that says of a file what it is now."""
    path = bundle.folder / name
    files = {**bundle.manifest.files, name: FileEntry(digest_file(path), path.stat().st_size)}
    return replace(bundle, manifest=replace(bundle.manifest, files=files))


def bundle_of(small: Small, folder: Path, passages: Sequence[tuple[str, str]]) -> LoadedBundle:
    """The first candidate's models over other passages, given as (title, text)."""
    source = small.first.bundle
    for name in source.manifest.files:
        if name.split("/")[0] in ("encoder", *(tier.name for tier in MODEL_TIERS), "bundle.json", "calibration.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source.path(name), folder / name)
    ids = [f"p{row}" for row in range(len(passages))]
    rows = [Passage(name, name, *pair, 0, len(pair[1]), "test") for name, pair in zip(ids, passages, strict=True)]
    write_rows(rows, Passage, folder / "passages.parquet")
    write_mapped_passages(folder / "passages.parquet", folder)
    texts = [passage_text(title, text) for title, text in passages]
    encoder = Encoder.load(folder / "encoder", small.settings.encoder.max_tokens, device="cpu")
    vectors = encoder.encode_passages([""] * len(texts), texts)
    write_dense(folder / "dense_index", vectors, ids)
    LexicalIndex.build(texts, ids).save(folder / "lexical_index")
    return LoadedBundle(Bundle.open(replace(source, folder=folder)), ServedVersions("r", "b", "1", "i", "c"))


class _Unpickled:
    """What `pickle` looks up while a block runs: every load of a class or function is an audit event."""

    def __init__(self) -> None:
        self.watching = False
        self.found: list[Any] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "pickle.find_class":
            self.found.append(arguments[1:])

    @contextmanager
    def watch(self) -> Iterator[list[Any]]:
        self.found, self.watching = [], True
        yield self.found
        self.watching = False


@pytest.fixture(scope="session")
def unpickled() -> _Unpickled:
    """Once per session, since an audit hook stays."""
    return _Unpickled()


def test_a_release_of_the_large_model_alone_has_no_trace_of_another(small: Small) -> None:
    tiers = small.settings.tiers.model_copy(update={"models": ["large"]})
    settings = small.settings.model_copy(update={"tiers": tiers})
    candidate = make_candidate(small.store, settings, small.artifacts, {"large": small.first.large})
    bundle = Bundle.open(candidate.bundle)
    assert not any("compact" in name for name in candidate.bundle.manifest.files)
    assert [tier.name for tier in bundle.calibration.models] == ["large"]
    assert set(candidate.evaluation.read_table("rankings.parquet")["system"]) == {
        "bm25", "dense", "hybrid", "lean", "large", "tiered",
    }  # fmt: skip
    bundle_loaded = load_bundle(candidate.bundle)
    try:
        comparison = bundle_loaded.reproduce_golden(small.settings.gate.max_golden_difference)
        assert comparison.order_equal
        assert comparison.max_difference < 1e-4
        ranking = bundle_loaded.rank_candidates(QUESTION, bundle_loaded.retrieve(QUESTION, 6), 1e6)
        assert set(ranking.stage_ms) == {"large"}
        assert bundle_loaded.candidates_ms(QUESTION, 6) > 0
        texts = ["Clean the pump.", "Book a room."]
        assert bundle_loaded.documents_ms(QUESTION, texts) > 0
        assert len(bundle_loaded.rank_documents(QUESTION, texts, 1e6).items) == 2
        assert len(bundle_loaded.keep_order(texts).items) == 2
        assert {item.tier for item in ranking.items} <= {"large", "lean"}
    finally:
        bundle_loaded.close()


def test_serving_ranks_as_the_offline_evaluation_did(loaded: LoadedBundle, small: Small) -> None:
    rankings = small.first.evaluation.read_table("rankings.parquet")
    tiered = rankings[rankings["system"] == "tiered"]
    queries = small.artifacts["corpus/evaluation_set"].read_table("queries.parquet").set_index("query_id")["text"]
    for query_id in sorted(set(tiered["query_id"]))[::5]:
        expected = tiered[tiered["query_id"] == query_id].sort_values("rank")
        query = str(queries[query_id])
        result = loaded.rank_candidates(query, loaded.retrieve(query, 8, None), BUDGET_MS)
        logits = {item.passage_id: item.logit for item in result.items}
        assert [logits[name] for name in expected["passage_id"]] == pytest.approx(expected["score"].tolist(), abs=1e-3)
        assert [item.tier for item in result.items] == expected["tier"].tolist()


def test_what_was_learned_is_served(loaded: LoadedBundle) -> None:
    candidates = loaded.retrieve(QUESTION, 8)
    result = loaded.rank_candidates(QUESTION, candidates, BUDGET_MS)
    best = loaded.passage(candidates[result.items[0].index])
    assert best.document_id == f"water filter/cleaning/{in_force('water filter', 'cleaning')}"


def test_a_bundle_says_what_it_is(loaded: LoadedBundle, small: Small) -> None:
    facts = Bundle.open(small.first.bundle).facts
    passages = small.artifacts["corpus/passages"].data_version
    assert loaded.versions == ServedVersions("", small.first.bundle.data_version, "", facts.index_version, passages)
    assert facts.corpus_version == passages


def test_a_candidate_carries_its_row_to_the_passage(loaded: LoadedBundle) -> None:
    candidates = loaded.retrieve(QUESTION, 3)
    assert [candidate.rank for candidate in candidates] == [1, 2, 3]
    passages = [loaded.passage(candidate) for candidate in candidates]
    assert [(item.passage_id, item.document_id) for item in passages] == [
        (item.passage_id, item.document_id) for item in candidates
    ]


def test_access_labels_decide_what_is_retrieved(loaded: LoadedBundle) -> None:
    question = "where does the spare key of the workshop hang"

    def texts(labels: frozenset[str] | None) -> set[str]:
        passage_filter = None if labels is None else PassageFilter(labels)
        return {loaded.passage(candidate).text for candidate in loaded.retrieve(question, 100, passage_filter)}

    assert SECRET not in texts(frozenset())
    assert SECRET not in texts(frozenset({"guests"}))
    assert texts(frozenset({STAFF})) == texts(None) == texts(frozenset()) | {SECRET}


def test_passages_are_the_pieces_of_their_documents(loaded: LoadedBundle) -> None:
    result = [loaded.passage(candidate) for candidate in loaded.retrieve("who sweeps bench 9", 100)]
    assert len({passage.passage_id for passage in result if passage.document_id == "rules"}) > 1
    for passage in result:
        assert Handbook().text_of(passage.document_id)[passage.start : passage.end] == passage.text


def test_golden_scores_come_back(loaded: LoadedBundle, small: Small) -> None:
    result = loaded.reproduce_golden(small.settings.gate.max_golden_difference)
    assert result.queries == len(loaded.golden) == small.settings.serving.golden_queries
    assert result.max_difference < 1e-4
    assert result.order_equal


def test_ranking_twice_gives_the_same_bytes(loaded: LoadedBundle, small: Small) -> None:
    other = load_bundle(small.first.bundle)
    scores = [
        np.array(
            [item.score for item in bundle.rank_candidates(QUESTION, bundle.retrieve(QUESTION, 8), BUDGET_MS).items]
        )
        for bundle in (loaded, loaded, other)
    ]
    assert scores[0].tobytes() == scores[1].tobytes() == scores[2].tobytes()


def test_a_text_of_the_corpus_is_known_with_and_without_its_title(loaded: LoadedBundle) -> None:
    first = loaded.retrieve(QUESTION, 1)[0]
    passage = loaded.passage(first)
    whole = f"{passage.title}\n{passage.text}"
    result = loaded.rank_documents(QUESTION, [passage.text, whole, passage.text + " "], BUDGET_MS)
    by_place = {item.index: item for item in result.items}
    assert [by_place[index].passage_id for index in range(3)] == [first.passage_id, first.passage_id, None]
    assert by_place[0].dense_score == by_place[1].dense_score == first.dense_score
    assert by_place[1].lexical_score == pytest.approx(first.lexical_score, abs=1e-6)


def test_documents_are_embedded_while_a_share_of_the_budget_lasts(loaded: LoadedBundle) -> None:
    documents = [f"note {number} about the water filter" for number in range(200)]
    result = loaded.rank_documents(QUESTION, documents, 1.0)
    assert ranking_fault(result, 200) == ""
    assert result.degraded_reason.startswith("0 of 200 documents embedded inside the budget; compact scored 0 of 8")
    assert len({item.dense_score for item in result.items}) == 1, "the mean of the corpus"
    whole = loaded.rank_documents(QUESTION, documents[:5], BUDGET_MS)
    assert (whole.degraded, whole.degraded_reason) == (False, "")
    assert set(whole.stage_ms) == {"first_stage", *(tier.name for tier in MODEL_TIERS)}


def test_without_a_budget_words_order_the_documents_and_no_model_runs(loaded: LoadedBundle) -> None:
    documents = ["mice", "how do I clean the water filter", "mice", "the water filter", "x" * 300_000 + " water filter"]
    result = loaded.rank_documents("clean the water filter", documents, 0.0)
    assert [item.index for item in result.items] == [1, 3, 0, 2, 4]
    assert {item.tier for item in result.items} == {"lean"}
    assert (result.tokens, result.degraded) == (0, True)
    assert len({item.dense_score for item in result.items}) == 1
    kept = loaded.keep_order(documents)
    assert ranking_fault(kept, 5) == ""
    assert [item.index for item in kept.items] == [0, 1, 2, 3, 4]
    assert len({item.score for item in kept.items}) == 1
    assert loaded.rank_documents("q", [], 0.0).items == []


@pytest.mark.parametrize("budget_ms", [0.0, BUDGET_MS])
def test_what_stands_behind_the_characters_that_are_read_changes_nothing(
    loaded: LoadedBundle, budget_ms: float
) -> None:
    beginning = "Mice stay away. " * 1000
    plain, longer = (
        loaded.rank_documents(QUESTION, [beginning + tail], budget_ms).items[0] for tail in ("", f"{QUESTION}. " * 200)
    )
    assert plain == longer
    assert plain.lexical_score == 0


def test_one_long_document_is_not_predicted_to_make_the_others_long(loaded: LoadedBundle) -> None:
    texts = [f"{name} {number}" for name in MACHINES for number in range(4)]
    assert loaded.documents_ms(QUESTION, [*texts, "soda " * 100_000]) < 2 * loaded.documents_ms(QUESTION, texts)
    assert loaded.candidates_ms(QUESTION * 50, 8) < 2 * loaded.candidates_ms(QUESTION, 8)


def test_an_embedding_time_measured_at_a_busy_moment_is_corrected(loaded: LoadedBundle) -> None:
    measured = loaded._encode_ms.value
    loaded._encode_ms.value = 1e5
    asked = 0
    while loaded.rank_documents(QUESTION, [f"note {asked}"], 20_000.0).degraded:
        asked += 1
        assert asked < 50, "what is skipped is never measured"
    assert asked
    assert loaded._encode_ms.value < 20_000
    loaded._encode_ms.value = measured


def test_the_predicted_time_grows_with_the_request_up_to_what_the_tiers_score(loaded: LoadedBundle) -> None:
    known = [loaded.passage(candidate).text for candidate in loaded.retrieve(QUESTION, 4)]
    few, more = loaded.candidates_ms(QUESTION, 2), loaded.candidates_ms(QUESTION, 8)
    assert 0 < few < more == loaded.candidates_ms(QUESTION, 800)
    assert 0 < loaded.documents_ms(QUESTION, known) < loaded.documents_ms(QUESTION, [f"{text}!" for text in known])
    assert loaded.documents_ms(QUESTION, ["soda " * 80] * 4) == loaded.documents_ms(QUESTION, ["soda " * 400] * 4)


def test_a_release_is_loaded_under_its_name(small: Small) -> None:
    release = release_of(versions_of(small.first.bundle.data_version, "12"))
    bundle = load_release(small.settings, release)
    assert (bundle.versions.release_id, bundle.versions.model_version) == ("r-1", "12")
    bundle.close()
    with pytest.raises(AttributeError):
        bundle.rank_documents("q", ["a"], 0.0)
    with pytest.raises(ArtifactError, match="no artifact release/release_candidate ffff"):
        load_release(small.settings, replace(release, bundle_version="ffff"))


@pytest.mark.parametrize("name", LOADED)
def test_a_file_altered_by_one_byte_is_refused(small: Small, tmp_path: Path, name: str) -> None:
    bundle = copied(small.first.bundle, tmp_path, own=name)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} differs from its digest"):
        load_bundle(bundle)


def test_a_file_that_is_missing_is_refused(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path)
    (tmp_path / "large" / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"large/model\.safetensors is missing"):
        load_bundle(bundle)


def test_a_bundle_of_a_later_format_is_refused(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path, own="bundle.json")
    facts = json.loads((tmp_path / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps({**facts, "format": 5}))
    with pytest.raises(ArtifactError, match="format 5 is not known"):
        load_bundle(admitted(bundle, "bundle.json"))


def test_a_bundle_from_before_there_was_a_choice_is_served_by_reciprocal_ranks(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path, own="bundle.json")
    facts = json.loads((tmp_path / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps({**facts, "format": 3}))
    (tmp_path / "first_stage.json").unlink()
    files = {name: entry for name, entry in bundle.manifest.files.items() if name != "first_stage.json"}
    older = replace(bundle, manifest=replace(bundle.manifest, files=files))
    loaded = load_bundle(admitted(older, "bundle.json"))
    best = loaded.retrieve(QUESTION, 8)
    assert len(best) == 8
    constant, depth = small.settings.index.rrf_k, small.settings.index.depth
    assert all(1 / (constant + depth) <= item.retriever_score <= 2 / (constant + 1) for item in best)
    loaded.close()


def test_it_retrieves_in_the_order_that_was_evaluated(loaded: LoadedBundle, small: Small) -> None:
    queries = small.artifacts["corpus/evaluation_set"].read_table("queries.parquet")
    stages = small.artifacts["index/candidates"].read_table("first_stage.parquet")
    lean = stages[stages["system"] == "lean"]
    for query in queries.head(6).itertuples():
        offline = lean[lean["query_id"] == query.query_id].sort_values("rank")["passage_id"].tolist()[:8]
        assert [item.passage_id for item in loaded.retrieve(str(query.text), 8, None)] == offline


def test_nothing_is_unpickled(small: Small, unpickled: _Unpickled) -> None:
    with unpickled.watch() as result:
        pickle.loads(pickle.dumps(Path("x")))
    assert result, "the watch sees pickles"
    with unpickled.watch() as result:
        bundle = load_bundle(small.first.bundle)
        bundle.rank_candidates(QUESTION, bundle.retrieve(QUESTION, 8), BUDGET_MS)
    assert result == []


@pytest.mark.parametrize("model", ["encoder", "large", "compact"])
def test_a_pickle_in_the_place_of_weights_is_refused_unread(
    small: Small, tmp_path: Path, unpickled: _Unpickled, model: str
) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "attacked",)

    own = weights_file(small.first.bundle.manifest.files, model)
    bundle = copied(small.first.bundle, tmp_path, own=own)
    (tmp_path / own).unlink()
    (tmp_path / own).with_name("pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    (tmp_path / own).write_bytes(pickle.dumps(Attack()))
    with unpickled.watch() as result, pytest.raises(Exception, match=r"(?i)safetensors|header|deserializ|protobuf"):
        load_bundle(admitted(bundle, own))
    assert result == []
    assert not (tmp_path / "attacked").exists()


def test_two_passages_are_a_corpus(small: Small, tmp_path: Path) -> None:
    bundle = bundle_of(small, tmp_path, [("Loom", "Oil the loom every week."), ("", "Thunder follows lightning.")])
    retrieved = bundle.retrieve("how is the loom oiled", 20)
    assert [item.passage_id for item in retrieved] == ["p0", "p1"]
    ranking = bundle.rank_candidates("how is the loom oiled", retrieved, BUDGET_MS)
    assert ranking_fault(ranking, 2) == ""
    assert ranking.items[0].passage_id == "p0"
    assert ranking_fault(bundle.rank_documents("x", ["a", "", "b"], BUDGET_MS), 3) == ""
    assert ranking_fault(bundle.rank_documents("x", ["a"], 0.0), 1) == ""


def test_a_text_that_passages_of_other_titles_share_is_none_of_them(small: Small, tmp_path: Path) -> None:
    shared = "Oil it every week."
    bundle = bundle_of(
        small, tmp_path, [("Loom", shared), ("Pump", shared), ("Saw", "Sharpen it."), ("Saw", "Sharpen it.")]
    )
    result = bundle.rank_documents("oil", [shared, f"Pump\n{shared}", "Sharpen it."], BUDGET_MS)
    known = {item.index: item.passage_id for item in result.items}
    assert (known[0], known[1]) == (None, "p1")
    assert known[2] in ("p2", "p3"), "twins have one vector"
