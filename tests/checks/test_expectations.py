"""Expectation checks over real artifacts: what passes, what warns, what stops the run."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from assets import keys
from checks import expectations
from tests.checks import corpus_tables
from tests.checks.check_cases import run_checks, shown, table_asset, use_home

_PASSAGES, _EVALUATION_SET = expectations.CHECKS
_BELOW = dg.AssetKey("below")


def _run(deployment, passages, check=_PASSAGES):
    assets = [table_asset(keys.PASSAGES, {"passages.parquet": passages}), table_asset(_BELOW, {}, deps=[keys.PASSAGES])]
    result, found = run_checks(deployment, assets, [check])
    return result, found["expectations"]


def test_good_passages_pass_with_a_page(tmp_path, monkeypatch) -> None:
    result, evaluation = _run(use_home(tmp_path, monkeypatch), corpus_tables.passages())
    assert result.success
    assert evaluation.passed
    assert shown(evaluation)["value"] == 1
    page = Path(shown(evaluation)["report"])
    assert page.is_relative_to(tmp_path)
    assert "passage_id_is_unique" in page.read_text(encoding="utf-8")


def test_a_critical_expectation_stops_what_is_downstream(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    result, evaluation = _run(deployment, corpus_tables.passages().assign(document_id="d0"))
    assert not result.success
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert "several_documents" in shown(evaluation)["examples"]
    assert deployment.store().current("below") is None


def test_a_soft_expectation_only_warns(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    result, evaluation = _run(deployment, corpus_tables.passages().assign(title=""))
    assert result.success
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert shown(evaluation)["violations"] == 1
    assert deployment.store().current("below") is not None


def test_the_limit_on_length_follows_the_settings(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch, CORPUS__PASSAGE_TOKENS="16", CORPUS__OVERLAP_TOKENS="0")
    text = "x" * (16 * 12 + 1)
    table = corpus_tables.passages().assign(text=text, end=len(text))
    assert "few_overlong_passages" in shown(_run(deployment, table)[1])["examples"]
    monkeypatch.setenv("RERANKOPS_CORPUS__PASSAGE_TOKENS", "17")
    assert _run(deployment, table)[1].passed


def test_an_unchanged_artifact_is_validated_once_and_its_page_is_restored(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    page = Path(shown(_run(deployment, corpus_tables.passages())[1])["report"])
    page.unlink()

    def refuse(*_: object) -> None:
        raise AssertionError("the suite was run again")

    monkeypatch.setattr("models.expectations.validate", refuse)
    result, evaluation = _run(deployment, corpus_tables.passages())
    assert result.success
    assert evaluation.passed
    assert page.is_file()


def test_evaluation_set_needs_positives(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    queries, judgments = corpus_tables.queries(train=0), corpus_tables.judgments(70)
    for table, passes in ((judgments, True), (judgments.assign(grade=[0, *[1] * 69]), False)):
        asset = table_asset(keys.EVALUATION_SET, {"queries.parquet": queries, "judgments.parquet": table})
        result, found = run_checks(deployment, [asset], [_EVALUATION_SET])
        assert result.success is found["expectations"].passed is passes
    assert "every_query_has_a_positive" in shown(found["expectations"])["examples"]
    assert "query_id=q0" in shown(found["expectations"])["examples"]
