"""Checks between tables: references, splits, and training against evaluation."""

from __future__ import annotations

import pytest

from assets import keys
from checks import leakage
from tests.checks import corpus_tables
from tests.checks.check_cases import run_checks, shown, table_asset, use_home


def _assets(*, passages=None, queries=None, judgments=None):
    return [
        table_asset(keys.PASSAGES, {"passages.parquet": corpus_tables.passages() if passages is None else passages}),
        table_asset(keys.QUERIES, {"queries.parquet": corpus_tables.queries() if queries is None else queries}),
        table_asset(
            keys.JUDGMENTS, {"judgments.parquet": corpus_tables.judgments() if judgments is None else judgments}
        ),
    ]


def test_a_sound_corpus_passes(tmp_path, monkeypatch) -> None:
    result, found = run_checks(use_home(tmp_path, monkeypatch), _assets(), leakage.CHECKS[:2])
    assert result.success
    assert all(evaluation.passed for evaluation in found.values())
    assert set(found) == {"references_resolve", "splits_are_disjoint"}


def test_judgments_of_unknown_queries_and_documents_are_named(tmp_path, monkeypatch) -> None:
    table = corpus_tables.judgments()
    broken = table.assign(
        query_id=["gone", *table["query_id"].tolist()[1:]],
        document_id=["d0", "nowhere", *table["document_id"].tolist()[2:]],
    )
    result, found = run_checks(use_home(tmp_path, monkeypatch), _assets(judgments=broken), leakage.CHECKS[:1])
    evaluation = found["references_resolve"]
    assert not result.success
    assert shown(evaluation)["violations"] == 2
    assert "| gone | d0 | query |" in shown(evaluation)["examples"]
    assert "| q1 | nowhere | document |" in shown(evaluation)["examples"]


def test_one_text_in_two_splits_fails_and_twice_in_one_split_passes(tmp_path, monkeypatch) -> None:
    table = corpus_tables.queries()
    texts = table["text"].tolist()
    deployment = use_home(tmp_path, monkeypatch)
    leaking = table.assign(text=[*texts[:-1], f"  {texts[0].upper()}? "])
    result, found = run_checks(deployment, _assets(queries=leaking), [leakage.splits_are_disjoint])
    assert not result.success
    assert "| q79 | q0 | same_text |" in shown(found["splits_are_disjoint"])["examples"]

    repeated = table.assign(text=[*texts[:-1], texts[-2]])
    result, found = run_checks(deployment, _assets(queries=repeated), [leakage.splits_are_disjoint])
    assert result.success
    assert found["splits_are_disjoint"].passed


@pytest.mark.parametrize(
    ("query_id", "text", "kind"),
    [
        ("q0", "something else", "same_id"),
        ("new", "How does topic 3  work?", "same_text"),
        ("new", "how does topic 99 work", None),
    ],
)
def test_an_evaluated_query_in_training_stops_the_run(query_id, text, kind, tmp_path, monkeypatch) -> None:
    examples = corpus_tables.training_examples()
    changed = examples.assign(
        query_id=[query_id, *examples["query_id"].tolist()[1:]], query=[text, *examples["query"].tolist()[1:]]
    )
    evaluation_queries = corpus_tables.queries(train=0)
    assets = [
        table_asset(
            keys.EVALUATION_SET,
            {"queries.parquet": evaluation_queries, "judgments.parquet": corpus_tables.judgments(70)},
        ),
        table_asset(keys.TRAINING_EXAMPLES, {"training_examples.parquet": changed}),
    ]
    deployment = use_home(tmp_path, monkeypatch)
    result, found = run_checks(deployment, assets, [leakage.no_evaluation_query_in_training])
    evaluation = found["no_evaluation_query_in_training"]
    assert result.success is evaluation.passed is (kind is None)
    if kind:
        assert f" {kind} |" in shown(evaluation)["examples"]


def test_a_changed_corpus_is_looked_at_again(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    assert run_checks(deployment, _assets(), [leakage.references_resolve])[1]["references_resolve"].passed
    fewer = corpus_tables.passages(79)
    assert not run_checks(deployment, _assets(passages=fewer), [leakage.references_resolve])[1][
        "references_resolve"
    ].passed
