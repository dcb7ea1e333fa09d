"""What auto is for a corpus: that it follows lengths, judgments and time, says why, and gives way to a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.contracts.tiers import DISTILLED_TIERS
from models.errors import ArtifactError, SettingsError
from models.settings import Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table
from models.training.corpus_defaults import (
    KEYS,
    CorpusFacts,
    choices_of,
    choose_candidates,
    choose_defaults,
    choose_pairs,
    choose_tokens,
    make_corpus_defaults,
    settings_in_force,
    with_defaults,
)
from models.training.steps import LARGE_RERANKER
from models.training.training_speed import TrainingSpeed

DEFAULT_CORPUS = CorpusFacts(
    passages=17411, documents=12000, passage_tokens=145, query_tokens=12, token_limit=512, measured_queries=400,
    read_share={64: 0.7, 96: 0.843, 128: 0.914, 192: 0.978, 256: 0.999}, training_queries={"given": 7781},
    development_queries={"given": 480}, recall={20: 0.873, 50: 0.920, 100: 0.950},
)  # fmt: skip
"""As measured on training and development queries of the demo's corpus."""


BOTH = {"tiers": {"models": ["compact", "large"]}}


def settings(**training: Any) -> Settings:
    return Settings.model_validate({"training": training, **BOTH})


def test_the_default_corpus_keeps_the_numbers_that_were_measured_on_it() -> None:
    choices = choose_defaults(DEFAULT_CORPUS, settings(), None)
    assert {key: choice.value for key, choice in choices.items()} == {
        "training.max_tokens": 96,
        "training.passage_cut": "start",
        "training.large_pairs": 31_124,
        "training.compact_pairs": 15_560,
        "evaluation.candidates": 50,
        "tiers.compact_candidates": 50,
        "tiers.large_candidates": 50,
    }
    assert "96 tokens read 0.84 of the query's words" in choices["training.max_tokens"].reason
    assert "0.873 at 20" in choices["evaluation.candidates"].reason
    without = choose_defaults(DEFAULT_CORPUS, Settings(), None)
    none = dict.fromkeys(("training.compact_pairs", "tiers.compact_candidates"), 0)
    assert {key: choice.value for key, choice in without.items()} == {key: c.value for key, c in choices.items()} | none
    assert without["training.compact_pairs"].reason == "tiers.models has no compact model"


def test_what_is_read_of_a_passage_follows_the_source() -> None:
    def cut(**corpus: Any) -> str:
        choices = choose_defaults(DEFAULT_CORPUS, Settings.model_validate({"corpus": corpus}), None)
        return str(choices["training.passage_cut"].value)

    assert cut() == cut(source="python-docs") == "start"
    assert cut(source="folder", path="/docs") == cut(source="beir", path="/corpus") == "query"
    by_hand = Settings.model_validate({"training": {"passage_cut": "query"}})
    assert "training.passage_cut" not in choose_defaults(DEFAULT_CORPUS, by_hand, None)


def test_long_passages_take_more_tokens_up_to_what_the_model_reads() -> None:
    dense = replace(DEFAULT_CORPUS, read_share={64: 0.5, 96: 0.6, 128: 0.7, 192: 0.74, 256: 0.74})
    assert choose_tokens(replace(dense, read_share={64: 0.72, 96: 0.851, 128: 0.921})).value == 96
    assert choose_tokens(dense).value == 256, "the most that is tried, where nothing is enough"
    assert choose_tokens(replace(dense, token_limit=128)).value == 128
    unknown = replace(dense, read_share={})
    assert choose_tokens(unknown).value == 64
    assert choose_tokens(replace(unknown, token_limit=48)).value == 48


def test_pairs_follow_the_training_queries_and_the_time() -> None:
    def pairs(facts: CorpusFacts, speed: TrainingSpeed | None = None, **training: Any) -> dict[str, int]:
        result = choose_pairs(facts, settings(**training).training, DISTILLED_TIERS, speed)
        return {key.removeprefix("training."): int(choice.value) for key, choice in result.items()}

    few = replace(DEFAULT_CORPUS, training_queries={"title": 60, "given": 40})
    assert pairs(few) == {"large_pairs": 2400, "compact_pairs": 1200}, "100 queries, 6 lists of 4 each"
    assert pairs(DEFAULT_CORPUS) == {"large_pairs": 31_124, "compact_pairs": 15_560}, "a list of 4 for each query"
    assert pairs(DEFAULT_CORPUS, max_queries=5000) == {"large_pairs": 20_000, "compact_pairs": 10_000}
    assert pairs(replace(DEFAULT_CORPUS, training_queries={"given": 3343}))["large_pairs"] == 16_000
    assert pairs(replace(DEFAULT_CORPUS, training_queries={"given": 90_000}))["large_pairs"] == 32_000
    assert (
        "40 given, 60 title"
        in choose_pairs(few, Settings().training, DISTILLED_TIERS, None)["training.large_pairs"].reason
    )
    speed = TrainingSpeed(large=60, student=40)
    in_time = pairs(DEFAULT_CORPUS, speed, minutes=5)
    assert 295 < in_time["large_pairs"] / 60 + in_time["compact_pairs"] / 40 <= 300
    assert in_time["compact_pairs"] == pytest.approx(in_time["large_pairs"] / 2, abs=4)
    assert all(count % 4 == 0 for count in in_time.values())
    assert pairs(DEFAULT_CORPUS, speed, minutes=1000)["large_pairs"] == 7781 * 6 * 4, "no more than there are"
    # A number is in force as it is, and the rest of the time goes to the other model.
    assert pairs(DEFAULT_CORPUS, speed, minutes=5, large_pairs=6000) == {"compact_pairs": 8000}
    assert pairs(DEFAULT_CORPUS, speed, minutes=5, large_pairs=6000, compact_pairs=1) == {}
    assert pairs(DEFAULT_CORPUS, speed, minutes=1, large_pairs=60_000) == {"compact_pairs": 4}, "never none"
    assert pairs(replace(DEFAULT_CORPUS, training_queries={})) == {"large_pairs": 0, "compact_pairs": 0}
    # Without a compact model all of the time is the large one's.
    alone = choose_pairs(DEFAULT_CORPUS, settings(minutes=5).training, (), speed)
    assert {key: choice.value for key, choice in alone.items()} == {"training.large_pairs": 18_000}


def test_candidates_are_as_deep_as_the_relevant_documents_lie() -> None:
    def depth(*recall: float) -> int:
        facts = replace(DEFAULT_CORPUS, recall=dict(zip((20, 50, 100), recall, strict=True)))
        return int(choose_candidates(facts).value)

    assert depth(0.9, 0.92, 0.946) == 20
    assert depth(0.858, 0.912, 0.946) == 50
    assert depth(0.5, 0.7, 0.9) == 100
    assert depth(1.0, 1.0, 1.0) == 20
    assert choose_candidates(replace(DEFAULT_CORPUS, recall={})).value == 20
    pseudo = choose_candidates(replace(DEFAULT_CORPUS, development_queries={"title": 100}))
    assert "pseudo-queries" in pseudo.reason


# From here on with artifacts, by the tokenizer of the base model.


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), tmp_path / "cache")


def keep(store: ArtifactStore, asset: str, summary: Mapping[str, Any] = {}, **tables: pd.DataFrame) -> Artifact:
    def build(folder: Path) -> Mapping[str, Any]:
        for name, table in tables.items():
            write_table(table, folder / f"{name}.parquet")
        (folder / "content").write_text(repr({name: table.to_json() for name, table in tables.items()}))
        return summary

    content = repr({name: table.to_json() for name, table in tables.items()})
    return store.get_or_create(
        asset, code_version="1", inputs={"content": content, "summary": repr(summary)}, settings={}, build=build
    )


Inputs = tuple[Artifact, Artifact, Artifact, Artifact, Artifact]


def corpus(store: ArtifactStore, filler: int, recall: float = 0.99) -> Inputs:
    """Documents of `filler` sentences; what is asked stands in the middle and at the end of each."""
    notes = "The clerk counts every crate in the yard. " * filler
    documents = [
        (f"d{n}#0", f"d{n}", f"Sheet {n}", f"{notes}Gear {n} turns left. {notes}Wheel {n} turns right.", f"h{n}")
        for n in range(60)
    ]
    passages = pd.DataFrame(documents, columns=["passage_id", "document_id", "title", "text", "content_hash"])
    queries = pd.DataFrame(
        [(f"q{n}", f"Does gear {n} turn like wheel {n}?", ("train", "dev", "test")[n % 3]) for n in range(60)],
        columns=["query_id", "text", "split"],
    )
    judgments = pd.DataFrame({"query_id": queries["query_id"], "document_id": passages["document_id"], "grade": 1})
    summary = {"recall_at_20": recall, "recall_at_50": 0.99, "recall_at_100": 0.99}
    return (
        keep(store, "corpus/passages", passages=passages),
        keep(store, "corpus/queries", queries=queries),
        keep(store, "corpus/judgments", judgments=judgments),
        keep(store, "corpus/evaluation_set", queries=queries[queries["split"] != "train"]),
        keep(store, "index/first_stage", summary),
    )


@pytest.mark.heavy
def test_the_choice_is_kept_with_its_reasons_and_told(store: ArtifactStore) -> None:
    told: list[str] = []
    short = make_corpus_defaults(store, Settings(), *corpus(store, 0), told.append)
    choices = choices_of(short)
    assert set(choices) == set(KEYS)
    assert short.summary == {key: choice.value for key, choice in choices.items()}
    assert choices["training.max_tokens"].value == 64
    assert choices["training.large_pairs"].value == 20 * 6 * 4, "20 training queries"
    assert any(line.startswith("training.max_tokens = 64: 64 tokens read 1.00") for line in told)
    assert make_corpus_defaults(store, Settings(), *corpus(store, 0)).reused
    # Two places that are far apart are not read together by few tokens.
    long = make_corpus_defaults(store, Settings(), *corpus(store, 8, recall=0.8))
    assert int(choices_of(long)["training.max_tokens"].value) > 64
    assert choices_of(long)["evaluation.candidates"].value == choices_of(long)["tiers.large_candidates"].value == 50


@pytest.mark.heavy
def test_test_queries_choose_nothing(store: ArtifactStore) -> None:
    passages, queries, judgments, evaluation_set, first_stage = corpus(store, 8)
    table = queries.read_table("queries.parquet")
    table["text"] = table["text"].mask(table["split"] == "test", "Sheet")
    other = keep(store, "corpus/queries", queries=table)
    first = make_corpus_defaults(store, Settings(), passages, queries, judgments, evaluation_set, first_stage)
    second = make_corpus_defaults(store, Settings(), passages, other, judgments, evaluation_set, first_stage)
    assert second.data_version == first.data_version
    assert not second.reused


@pytest.mark.heavy
def test_a_number_is_in_force_and_auto_becomes_what_was_chosen(store: ArtifactStore) -> None:
    inputs = corpus(store, 0)
    artifact = make_corpus_defaults(store, settings(), *inputs)
    store.point(artifact)
    resolved = with_defaults(settings(), artifact)
    assert resolved.training.max_tokens == 64
    assert resolved.evaluation.candidates == resolved.tiers.compact_candidates == 20
    assert settings_in_force(store, settings()) == resolved
    set_by_hand = with_defaults(settings(max_tokens=48, large_pairs=7), artifact)
    assert (set_by_hand.training.max_tokens, set_by_hand.training.large_pairs) == (48, 7)
    assert set_by_hand.training.compact_pairs == resolved.training.compact_pairs

    # What is trained is made anew where the number that was chosen is another one, and only there.
    def key(chosen: Settings) -> Mapping[str, Any]:
        return LARGE_RERANKER.values(chosen)

    assert key(resolved) == key(with_defaults(settings(minutes=0.0), artifact))
    assert key(resolved) != key(set_by_hand)
    assert key(resolved)["training.max_tokens"] == 64
    with pytest.raises(ArtifactError, match=r"tiers\.models"):
        with_defaults(Settings(), artifact)
    # A choice for other settings is not taken for this one.
    for changed in ({"draws": 1}, {"passage_cut": "start"}):
        with pytest.raises(ArtifactError, match="was made with training"):
            with_defaults(settings(**changed), artifact)
    with_number = make_corpus_defaults(store, settings(max_tokens=48), *inputs)
    with pytest.raises(ArtifactError, match=r"training\.max_tokens 48, this run has 'auto'"):
        with_defaults(settings(), with_number)


def test_auto_is_no_number() -> None:
    with pytest.raises(SettingsError, match="auto"):
        _ = Settings().training.students["compact"].pairs


@pytest.mark.heavy
def test_a_time_budget_takes_a_stated_speed(store: ArtifactStore) -> None:
    inputs = corpus(store, 0)
    limited = make_corpus_defaults(store, settings(minutes=0.1, pairs_per_second=20), *inputs)
    count = int(choices_of(limited)["training.large_pairs"].value)
    assert 0 < count < 0.1 * 60 * 20
    assert "0.1 minutes at 20 (large)" in choices_of(limited)["training.large_pairs"].reason
    with_defaults(settings(minutes=0.1, pairs_per_second=20), limited)
    with pytest.raises(ArtifactError, match=r"training\.minutes 0\.1, this run has 0\.0"):
        with_defaults(settings(), limited)


@pytest.mark.heavy
def test_a_speed_is_measured_once_for_a_store(store: ArtifactStore, tmp_path: Path) -> None:
    from tests.tiny_cross_encoder import tiny_settings, write_base

    tiny = tiny_settings(write_base(tmp_path / "base"), negatives=1, batch_queries=2, max_tokens=16)
    timed = Settings.model_validate(
        {"training": {**tiny.model_dump(), "large_pairs": "auto", "compact_pairs": "auto", "minutes": 0.02}, **BOTH}
    )
    first = make_corpus_defaults(store, timed, *corpus(store, 0))
    assert int(choices_of(first)["training.large_pairs"].value) > 0
    (kept,) = store.files.find("memo/training_speed")
    before = store.files.read(kept)
    # Another corpus in the same store: chosen anew, by the speed that is known.
    other = make_corpus_defaults(store, timed, *corpus(store, 1))
    assert not other.reused
    assert [store.files.read(key) for key in store.files.find("memo/training_speed")] == [before]
