"""A release by its words: it answers as the lean tier of the loaded one does, and reads nothing of the models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import ArtifactError
from models.release.bundle import Bundle
from models.retrieval.passage_filter import PassageFilter
from models.serving.document_reading import DocumentReading
from models.serving.loaded_bundle import LoadedBundle
from models.serving.protocol import ServedVersions, ranking_fault
from models.serving.words_bundle import WordsBundle, load_words
from models.settings import ServingSettings
from tests.models.serving.test_loaded_bundle import copied
from tests.releases import release_of, versions_of
from tests.small_bundle import BUDGET_MS, QUESTION, SECRET, STAFF, Small, in_force

ROOT = Path(__file__).resolve().parents[3]
KEY_QUESTION = "where does the spare key of the workshop hang"


@pytest.fixture(scope="module")
def words(small: Small) -> WordsBundle:
    versions = ServedVersions("", small.first.bundle.data_version, "", "", "")
    return WordsBundle(Bundle.open(small.first.bundle), versions, ServingSettings())


@pytest.mark.parametrize("budget_ms", [0.0, BUDGET_MS])
def test_texts_rank_as_in_the_lean_tier_of_the_loaded_bundle_whatever_the_budget(
    words: WordsBundle, loaded: LoadedBundle, budget_ms: float
) -> None:
    known = loaded.passage(loaded.retrieve(QUESTION, 1)[0]).text
    documents = ["mice", "how do I clean the water filter", known, "mice", "x" * 300_000 + " water filter"]
    for reading in (DocumentReading(), DocumentReading(tokens=3), DocumentReading(every_pair=True)):
        ranking = words.rank_documents(QUESTION, documents, budget_ms, reading=reading)
        assert ranking_fault(ranking, len(documents)) == ""
        assert {item.tier for item in ranking.items} == {"lean"}
        if reading.tokens is None:  # Else how many characters they are is estimated.
            assert ranking.items == loaded.rank_documents(QUESTION, documents, 0.0, reading=reading).items
    assert words.keep_order(documents).items == loaded.keep_order(documents).items
    assert (words.candidates, words.max_tokens) == (loaded.candidates, loaded.max_tokens)
    assert words.outage


def test_passages_that_share_a_word_are_retrieved_best_first(words: WordsBundle, loaded: LoadedBundle) -> None:
    candidates = words.retrieve(QUESTION, 8)
    assert [candidate.rank for candidate in candidates] == list(range(1, 9))
    by_words = [(candidate.lexical_score, candidate.passage_id) for candidate in candidates]
    assert by_words == sorted(by_words, key=lambda one: (-one[0], one[1]))
    of_both = {candidate.passage_id: candidate.lexical_score for candidate in loaded.retrieve(QUESTION, 100)}
    assert all(of_both[passage_id] == score for score, passage_id in by_words)
    passages = [words.passage(candidate) for candidate in candidates]
    assert [(one.passage_id, one.document_id) for one in passages] == [
        (one.passage_id, one.document_id) for one in candidates
    ]
    assert f"water filter/cleaning/{in_force('water filter', 'cleaning')}" in {one.document_id for one in passages}
    ranking = words.rank_candidates(QUESTION, candidates, BUDGET_MS)
    assert ranking_fault(ranking, 8) == ""
    assert {item.tier for item in ranking.items} == {"lean"}
    assert words.retrieve("xyzzy", 8) == []
    assert words.rank_candidates("xyzzy", [], BUDGET_MS).items == []


def test_access_labels_hold_without_the_models_too(words: WordsBundle) -> None:
    def texts(labels: frozenset[str] | None) -> set[str]:
        passage_filter = None if labels is None else PassageFilter(labels)
        return {words.passage(candidate).text for candidate in words.retrieve(KEY_QUESTION, 100, passage_filter)}

    assert SECRET not in texts(frozenset())
    assert SECRET not in texts(frozenset({"guests"}))
    assert texts(frozenset({STAFF})) == texts(None) == texts(frozenset()) | {SECRET}


def test_what_it_reads_is_verified_and_nothing_else(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_of(versions_of(small.first.bundle.data_version, "12"))
    words = load_words(small.settings, release)
    assert words.versions == ServedVersions.of(release)
    words.close()
    for name, refused in (("lexical_index/weights.npy", True), ("large/model.safetensors", False)):
        bundle = copied(small.first.bundle, tmp_path / name, own=name)
        data = bytearray(bundle.path(name).read_bytes())
        data[-1] ^= 1
        bundle.path(name).write_bytes(data)
        monkeypatch.setattr("models.store.artifacts.ArtifactStore.open", lambda *_, bundle=bundle: bundle)
        if refused:
            with pytest.raises(ArtifactError, match=f"{name} differs from its digest"):
                load_words(small.settings, release)
        else:
            load_words(small.settings, release).close()


def test_no_library_of_the_models_is_needed(small: Small) -> None:
    program = f"""
import sys
from pathlib import Path
from models.release.bundle import Bundle
from models.retrieval.passage_filter import PassageFilter
from models.serving.protocol import ServedVersions
from models.serving.words_bundle import WordsBundle
from models.settings import ServingSettings
from models.store.artifacts import ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
import services.app, services.server, models.serving.loaded_bundle, services.scorer.supervisor
store = ArtifactStore({small.settings.artifact_root!r}, Path("unused"))
bundle = Bundle.open(store.open(RELEASE_CANDIDATE, {small.first.bundle.data_version!r}))
words = WordsBundle(bundle, ServedVersions("", "", "", "", ""), ServingSettings())
words.rank_documents("water filter", ["the water filter"], 0.0)
words.rank_candidates("water filter", words.retrieve("water filter", 8, PassageFilter()), 0.0)
print(*sys.modules, sep="\\n")
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    slow = {"torch", "sentence_transformers", "transformers", "onnxruntime", "faiss", "pandas", "scipy", "sklearn"}
    assert slow & set(ran.stdout.split()) == set()
