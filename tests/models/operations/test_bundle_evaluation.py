"""A bundle on a BEIR folder: the workshop's handbook once more, so that the bundle's own evaluation is the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from models.contracts.tiers import FIRST_STAGES
from models.corpus.sources.beir import BeirSource
from models.errors import SourceError
from models.evaluation.report import read_report
from models.operations.bundle_evaluation import evaluate_bundle
from models.operations.judged_corpus import JudgedCorpus, judged_corpus
from models.settings import Settings
from tests.beir_folder import write_beir
from tests.small_bundle import RERANKERS, Handbook, Small, small_settings


@dataclass
class Told:
    """What was reported, by what it was about."""

    last: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __call__(self, what: str, done: int, total: int) -> None:
        self.last[what] = (done, total)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beir") / "handbook"
    write_beir(Handbook(), folder, broken_rows=1)
    return folder


@pytest.fixture
def settings(small: Small, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RERANKOPS_HOME", str(small.home))
    return small_settings(small.home)


def judge(small: Small, folder: Path, settings: Settings, told: Told | None = None, **options: Any) -> JudgedCorpus:
    return judged_corpus(small.first.bundle, BeirSource(folder), "handbook", settings, report=told or Told(), **options)


def test_the_corpus_it_was_made_on_gives_the_numbers_it_was_released_with(
    small: Small, folder: Path, settings: Settings
) -> None:
    before = {path: path.read_bytes() for path in small.home.glob("artifacts/current/**/*.json")}
    told = Told()
    corpus = judge(small, folder, settings, told)
    report = evaluate_bundle(small.first.bundle, corpus, settings).report
    expected = read_report(small.first.evaluation.folder)
    assert set(report.systems) == {*FIRST_STAGES, *RERANKERS}
    for name, result in report.systems.items():
        assert result.means == pytest.approx(expected.systems[name].means, abs=1e-12), name
        assert (result.low, result.high) == pytest.approx((expected.systems[name].low, expected.systems[name].high))
    gain, released = report.gains["tiered"], expected.gains["tiered"]
    assert (gain.difference, gain.p_value) == pytest.approx((released.difference, released.p_value))
    assert told.last["pairs scored"] == (2 * len(corpus.scored), 2 * len(corpus.scored))
    assert {path: path.read_bytes() for path in small.home.glob("artifacts/current/**/*.json")} == before


def test_a_second_call_computes_nothing_again(small: Small, folder: Path, settings: Settings) -> None:
    first = judge(small, folder, settings)
    told = Told()
    again = judge(small, folder, settings, told)
    assert told.last == {}
    pd.testing.assert_frame_equal(again.scored, first.scored)
    assert again.facts == first.facts


def test_what_was_refused_and_left_out_is_counted(small: Small, folder: Path, settings: Settings) -> None:
    corpus = judge(small, folder, settings, max_queries=10)
    assert len(corpus.queries) == corpus.facts["queries_evaluated"] == 10
    assert corpus.facts["queries_not_sampled"] == 15
    assert corpus.facts["quarantined_rows"] == 1
    assert 0 < corpus.facts["rejected_share"] < 0.02
    assert set(corpus.judgments["query_id"]) == set(corpus.queries["query_id"])
    development = judge(small, folder, settings, split="dev")
    assert set(development.queries["split"]) == {"dev"}
    assert len(development.queries) == 18


def test_every_first_stage_has_its_best_passages_scored(small: Small, folder: Path, settings: Settings) -> None:
    corpus = judge(small, folder, settings, candidates=5)
    assert corpus.scored.groupby("query_id")["given"].sum().tolist() == [5] * 25
    scored = set(zip(corpus.scored["query_id"], corpus.scored["passage_id"], strict=True))
    assert len(scored) == len(corpus.scored)
    for name in FIRST_STAGES:
        stage = corpus.first_stages[corpus.first_stages["system"] == name]
        best = stage[stage["rank"] <= 5]
        assert set(zip(best["query_id"], best["passage_id"], strict=True)) <= scored
    added = corpus.scored[~corpus.scored["given"]]
    assert len(added) > 0
    bm25 = corpus.first_stages[corpus.first_stages["system"] == "bm25"]
    joined = added.merge(bm25, on=["query_id", "passage_id"])
    assert joined["lexical_score"].tolist() == pytest.approx(joined["score"].tolist())


def test_a_corpus_that_breaks_its_contract_in_many_rows_is_refused(
    small: Small, tmp_path: Path, settings: Settings
) -> None:
    write_beir(Handbook(), tmp_path / "broken", broken_rows=9)
    with pytest.raises(SourceError, match=r"10\.\d% of the rows were refused.*max_rejected_share") as raised:
        judge(small, tmp_path / "broken", settings)
    assert "quarantined_rows.parquet" in raised.value.hint


def test_a_split_without_judged_queries_is_named(small: Small, folder: Path, settings: Settings) -> None:
    with pytest.raises(SourceError, match="no query of the split validation") as raised:
        judge(small, folder, settings, split="validation")
    assert "test 25" in raised.value.hint


def test_a_killed_call_is_gone_on_with_and_a_larger_sample_scores_what_it_adds(
    small: Small, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.operations.judged_corpus._QUERIES_KEPT", 5)
    monkeypatch.setenv("RERANKOPS_HOME", str(tmp_path / "home"))
    write_beir(Handbook(), tmp_path / "handbook")
    steps = tmp_path / "home" / "evaluations" / "steps" / "evaluation" / "scored_candidates"

    class Killed(BaseException):
        pass

    class KilledInTheThird(Told):
        def __call__(self, what: str, done: int, total: int) -> None:
            if what == "pairs scored" and len(list(steps.glob("*"))) == 2:
                raise Killed
            super().__call__(what, done, total)

    with pytest.raises(Killed):
        judge(small, tmp_path / "handbook", settings, KilledInTheThird(), max_queries=15)
    kept = {path: path.read_bytes() for path in steps.glob("*")}
    smaller = judge(small, tmp_path / "handbook", settings, max_queries=15)
    assert len(kept) == 2
    assert {path: path.read_bytes() for path in kept} == kept, "with the time when they were made"
    assert len(list(steps.glob("*"))) == 3
    whole = judge(small, tmp_path / "handbook", settings)
    assert len(list(steps.glob("*"))) == 5
    again = whole.scored[whole.scored["query_id"].isin(smaller.queries["query_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, smaller.scored)
