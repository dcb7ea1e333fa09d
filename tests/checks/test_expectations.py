"""Expectation checks over real artifacts: what passes, what warns, what stops the run."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets import keys
from checks import expectations
from models.expectations.accepted import accept_corpus
from tests.checks import corpus_tables
from tests.checks.check_cases import run_checks, table_asset
from tests.deployments import shown, use_home, write_artifact

pytestmark = pytest.mark.heavy

_PASSAGES, _WARNINGS, _QUERIES, _, _JUDGMENTS, _, _EVALUATION_SET, _ = expectations.CHECKS
_BELOW = dg.AssetKey("below")


def _run(deployment, passages, check=_PASSAGES):
    assets = [table_asset(keys.PASSAGES, {"passages.parquet": passages}), table_asset(_BELOW, {}, deps=[keys.PASSAGES])]
    result, observed = run_checks(deployment, assets, [check])
    (evaluation,) = observed.values()
    return result, evaluation


def test_good_passages_pass_with_a_page(tmp_path, monkeypatch) -> None:
    result, evaluation = _run(use_home(tmp_path, monkeypatch), corpus_tables.passages())
    assert result.success
    assert evaluation.passed
    assert shown(evaluation)["value"] == 1
    page = Path(shown(evaluation)["report"])
    assert page.is_relative_to(tmp_path)
    assert "An id names one passage." in page.read_text(encoding="utf-8")


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
    table = corpus_tables.passages().assign(title="")
    assert _run(deployment, table)[1].passed
    result, evaluation = _run(deployment, table, _WARNINGS)
    assert result.success
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    assert shown(evaluation)["violations"] == 1
    assert deployment.store().current("below") is not None


def test_the_limit_on_length_follows_the_settings(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch, CORPUS__PASSAGE_TOKENS="16", CORPUS__OVERLAP_TOKENS="0")
    text = "x" * (16 * 12 + 1)
    table = corpus_tables.passages().assign(text=text, end=len(text))
    assert "few_overlong_passages" in shown(_run(deployment, table, _WARNINGS)[1])["examples"]
    monkeypatch.setenv("RERANKOPS_CORPUS__PASSAGE_TOKENS", "17")
    assert "few_overlong_passages" not in shown(_run(deployment, table, _WARNINGS)[1])["examples"]


def test_an_unchanged_artifact_is_validated_once_and_a_page_that_is_gone_is_made_again(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    page = Path(shown(_run(deployment, corpus_tables.passages())[1])["report"])
    page.unlink()
    assert Path(shown(_run(deployment, corpus_tables.passages())[1])["report"]) == page
    assert page.is_file()

    def refuse(*_: object) -> None:
        raise AssertionError("the suite was run again")

    monkeypatch.setattr("models.expectations.suite_results.validate_with_page", refuse)
    assert _run(deployment, corpus_tables.passages())[1].passed


def test_evaluation_set_needs_positives(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    queries, judgments = corpus_tables.queries(train=0), corpus_tables.judgments(70)
    for table, passes in ((judgments, True), (judgments.assign(grade=[0, *[1] * 69]), False)):
        asset = table_asset(keys.EVALUATION_SET, {"queries.parquet": queries, "judgments.parquet": table})
        result, observed = run_checks(deployment, [asset], [_EVALUATION_SET])
        assert result.success is observed["expectations"].passed is passes
    assert "every_query_has_a_positive" in shown(observed["expectations"])["examples"]
    assert "query_id=q0" in shown(observed["expectations"])["examples"]


def _corpus(passages, queries, judgments):
    return [
        table_asset(keys.PASSAGES, {"passages.parquet": passages}),
        table_asset(keys.QUERIES, {"queries.parquet": queries}),
        table_asset(keys.JUDGMENTS, {"judgments.parquet": judgments}),
    ]


def test_a_later_corpus_is_held_against_the_one_that_was_released(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    store = deployment.store()
    tables = corpus_tables.passages(), corpus_tables.queries(), corpus_tables.judgments()
    run_checks(deployment, _corpus(*tables), [])
    _, observed = run_checks(deployment, _corpus(*tables), [_PASSAGES, _JUDGMENTS])
    assert observed["expectations"].passed
    assert run_checks(deployment, _corpus(*tables), [_QUERIES])[1]["expectations"].passed
    names = ("corpus/passages", "corpus/queries", "corpus/judgments")
    inputs = {name: store.require(name).data_version for name in names}
    evaluated = {"queries.parquet": corpus_tables.queries(train=0), "judgments.parquet": corpus_tables.judgments(70)}
    evaluation_set = write_artifact(store, "corpus/evaluation_set", evaluated, inputs=inputs)
    store.point(evaluation_set)
    bundle_inputs = {"corpus/evaluation_set": evaluation_set.data_version, names[0]: inputs[names[0]]}
    assert accept_corpus(store, write_artifact(store, "release/release_candidate", {}, inputs=bundle_inputs))

    result, observed = run_checks(deployment, _corpus(corpus_tables.passages(30), *tables[1:]), [_PASSAGES])
    assert not result.success
    assert "rows_as_accepted" in shown(observed["expectations"])["examples"]
    assert "corpus.hold_against_accepted=false" in (observed["expectations"].description or "")
    monkeypatch.setenv("RERANKOPS_CORPUS__HOLD_AGAINST_ACCEPTED", "false")
    assert run_checks(deployment, _corpus(corpus_tables.passages(30), *tables[1:]), [_PASSAGES])[0].success
    monkeypatch.setenv("RERANKOPS_CORPUS__HOLD_AGAINST_ACCEPTED", "true")
    result, observed = run_checks(deployment, _corpus(*tables), [_PASSAGES])
    assert result.success, "the accepted version itself"
    assert observed["expectations"].passed

    other = {"corpus/evaluation_set": "another", names[0]: inputs[names[0]]}
    assert not accept_corpus(store, write_artifact(store, "release/release_candidate", {}, inputs=other))
