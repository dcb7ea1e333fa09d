"""What the gate sees of the artifacts that a candidate was made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.errors import ArtifactError
from models.release.blocking_checks import BLOCKING_CHECKS, judge_origin
from models.store.artifacts import Artifact, ArtifactStore
from tests.checks import corpus_tables
from tests.remade import remake
from tests.small_bundle import Small, make_candidate

CANDIDATE = "release/release_candidate"
REFUSED = {"corpus/quarantined_rows": {"quarantined_rows.parquet": corpus_tables.quarantined_rows(30)}}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


def failing(small: Small, store: ArtifactStore, candidate: Artifact) -> set[str]:
    findings = judge_origin(store, small.settings, candidate)
    assert [*findings] == [*BLOCKING_CHECKS]
    return {check.key for check, finding in findings.items() if not finding.passed}


def test_names_are_given_once_and_each_check_says_what_to_do() -> None:
    assert len({check.key for check in BLOCKING_CHECKS}) == len(BLOCKING_CHECKS)
    assert all(check.advice and check.description for check in BLOCKING_CHECKS)
    assert all(check.asset in check.reads for check in BLOCKING_CHECKS)


def test_what_the_candidate_was_made_of_counts_and_not_what_is_current(small: Small, store: ArtifactStore) -> None:
    passages = small.artifacts["corpus/passages"].read_table("passages.parquet").assign(source="another shelf")
    good = remake(small, store, {})
    bad = remake(small, store, {"corpus/passages": {"passages.parquet": passages}, **REFUSED}, source="another")

    for artifact in bad.values():
        store.point(artifact)
    assert failing(small, store, good[CANDIDATE]) == set()
    for artifact in good.values():
        store.point(artifact)
    assert failing(small, store, bad[CANDIDATE]) == {"corpus/passages:rejected_share"}


def test_of_readings_that_gave_the_same_tables_the_one_used_last_counts(small: Small, store: ArtifactStore) -> None:
    """Rows are added to the source of which all are refused, and removed again: what was made of it stays the same."""
    candidate = remake(small, store, {}, source="clean")[CANDIDATE]
    assert failing(small, store, candidate) == set()
    assert remake(small, store, REFUSED, source="with broken rows")[CANDIDATE].data_version == candidate.data_version
    assert failing(small, store, candidate) == {"corpus/passages:rejected_share"}
    remake(small, store, REFUSED, source="clean")
    assert failing(small, store, candidate) == set(), "the step of this source is reused"


def test_logged_lists_are_judged_where_a_model_learned_from_them(small: Small, store: ArtifactStore) -> None:
    tiers = small.settings.tiers.model_copy(update={"models": ["large"]})
    settings = small.settings.model_copy(update={"tiers": tiers})
    alone = make_candidate(small.store, settings, small.artifacts, {"large": small.first.large})
    logged = {"training/logged_lists": {"logged_lists.parquet": corpus_tables.logged_lists(1).assign(passage="")}}
    both = remake(small, store, logged)
    assert failing(small, store, both[CANDIDATE]) == {
        "training/logged_lists:contract",
        "training/logged_lists:no_evaluation_query_in_training",
    }
    candidate = remake(small, store, {}, candidate=alone.bundle)[CANDIDATE]
    findings = judge_origin(store, settings, candidate)
    assert [*findings] == [check for check in BLOCKING_CHECKS if check.asset != "training/logged_lists"]
    assert all(finding.passed for finding in findings.values())


def test_checks_do_not_look_at_tables_whose_contract_is_broken(small: Small, store: ArtifactStore) -> None:
    judgments = small.artifacts["corpus/judgments"].read_table("judgments.parquet").drop(columns="grade")
    candidate = remake(small, store, {"corpus/judgments": {"judgments.parquet": judgments}})[CANDIDATE]
    findings = judge_origin(store, small.settings, candidate)
    refusing = {check.key: finding.description for check, finding in findings.items() if not finding.passed}
    assert refusing.keys() == {check.key for check in BLOCKING_CHECKS if "corpus/judgments" in check.reads}
    assert refusing["corpus/judgments:references_resolve"] == (
        "Not looked for: the contract of corpus/judgments is broken."
    )


def test_the_gate_computes_nothing_that_was_computed(small: Small, store: ArtifactStore, monkeypatch) -> None:
    candidate = remake(small, store, {})[CANDIDATE]
    assert failing(small, store, candidate) == set()
    monkeypatch.setattr(Artifact, "read_table", _refuse)
    assert failing(small, store, candidate) == set()


def _refuse(*_: object) -> None:
    raise AssertionError("a table was read again")


def test_what_was_deleted_is_named(small: Small, store: ArtifactStore) -> None:
    made = remake(small, store, {})
    shutil.rmtree(made["training/training_examples"].folder)
    with pytest.raises(ArtifactError, match=r"training/training_examples, which release/.* is no longer stored"):
        judge_origin(store, small.settings, made[CANDIDATE])


def test_a_candidate_of_two_versions_of_a_table_is_refused(small: Small, store: ArtifactStore) -> None:
    """Trained on the judgments of before, evaluated on those of now."""
    before = remake(small, store, {})
    judgments = small.artifacts["corpus/judgments"].read_table("judgments.parquet").assign(grade=1)
    now = remake(small, store, {"corpus/judgments": {"judgments.parquet": judgments}}, source="judged again")
    assert before["corpus/judgments"].data_version != now["corpus/judgments"].data_version
    assert before[CANDIDATE].data_version == now[CANDIDATE].data_version
    assert failing(small, store, now[CANDIDATE]) == set()
    for step in (store.files.path("steps") / "training" / "training_examples").iterdir():
        if now["training/training_examples"].manifest.step in step.name:
            step.unlink()
    with pytest.raises(ArtifactError, match=r"was made from corpus/judgments .*\n?.*Run `rerankops run`"):
        judge_origin(store, small.settings, now[CANDIDATE])
