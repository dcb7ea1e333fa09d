"""Checks between tables: references, splits, and training against evaluation."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from assets import keys
from checks import leakage
from tests.checks import corpus_tables
from tests.checks.check_cases import run_checks, table_asset
from tests.deployments import shown, use_home
from tests.query_encoding import embed_passages, store_vectors

pytestmark = pytest.mark.heavy

EVALUATED = ["how does topic 3 work", "what do cats eat", "who wrote the book", "when does it rain"]
PLANTED = (
    ("q0", "something else", "same_id"),
    ("new", "How does topic 3  work?", "same_text"),
    ("new", "topic 3: HOW might the work do", "same_words"),
    ("new", "what is the functioning of topic 3", "same_meaning"),
    ("new", "why is the sky blue", None),
)
"""Queries that are trained on: id, text, and what is wrong with each."""


def _assets(*, passages=None, queries=None, judgments=None):
    return [
        table_asset(keys.PASSAGES, {"passages.parquet": corpus_tables.passages() if passages is None else passages}),
        table_asset(keys.QUERIES, {"queries.parquet": corpus_tables.queries() if queries is None else queries}),
        table_asset(
            keys.JUDGMENTS, {"judgments.parquet": corpus_tables.judgments() if judgments is None else judgments}
        ),
    ]


def test_a_sound_corpus_passes(tmp_path, monkeypatch) -> None:
    result, observed = run_checks(use_home(tmp_path, monkeypatch), _assets(), leakage.CHECKS[:2])
    assert result.success
    assert all(evaluation.passed for evaluation in observed.values())
    assert set(observed) == {"references_resolve", "splits_are_disjoint"}


def test_judgments_of_unknown_queries_and_documents_are_named(tmp_path, monkeypatch) -> None:
    table = corpus_tables.judgments()
    broken = table.assign(
        query_id=["gone", *table["query_id"].tolist()[1:]],
        document_id=["d0", "nowhere", *table["document_id"].tolist()[2:]],
    )
    result, observed = run_checks(use_home(tmp_path, monkeypatch), _assets(judgments=broken), leakage.CHECKS[:1])
    evaluation = observed["references_resolve"]
    assert not result.success
    assert shown(evaluation)["violations"] == 2
    assert "| gone | d0 | query |" in shown(evaluation)["examples"]
    assert "| q1 | nowhere | document |" in shown(evaluation)["examples"]


def test_one_text_in_two_splits_fails_and_twice_in_one_split_passes(tmp_path, monkeypatch) -> None:
    table = corpus_tables.queries()
    texts = table["text"].tolist()
    deployment = use_home(tmp_path, monkeypatch)
    leaking = table.assign(text=[*texts[:-1], f"  {texts[0].upper()}? "])
    result, observed = run_checks(deployment, _assets(queries=leaking), [leakage.splits_are_disjoint])
    assert not result.success
    assert "| q79 | q0 | same_text |" in shown(observed["splits_are_disjoint"])["examples"]

    repeated = table.assign(text=[*texts[:-1], texts[-2]])
    result, observed = run_checks(deployment, _assets(queries=repeated), [leakage.splits_are_disjoint])
    assert result.success
    assert observed["splits_are_disjoint"].passed


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What index/passage_embeddings holds, with the encoder in it."""
    texts = [*EVALUATED, *(text for _, text, _ in PLANTED), *corpus_tables.queries()["text"]]
    return embed_passages(tmp_path_factory.mktemp("embeddings"), texts)


@pytest.mark.parametrize("trained", [keys.TRAINING_EXAMPLES, keys.LOGGED_LISTS], ids=keys.artifact_name)
@pytest.mark.parametrize(("query_id", "text", "reason"), PLANTED)
def test_an_evaluated_query_in_training_stops_the_run(
    trained, query_id, text, reason, embedded, tmp_path, monkeypatch
) -> None:
    evaluation_queries = corpus_tables.queries(test=3, dev=1, train=0).assign(text=EVALUATED)
    tables = {
        keys.TRAINING_EXAMPLES: {"training_examples.parquet": corpus_tables.training_examples(2)},
        keys.LOGGED_LISTS: {"logged_lists.parquet": corpus_tables.logged_lists(2)},
    }[trained]
    planted = {name: table.assign(query_id=query_id, query=text) for name, table in tables.items()}
    deployment = use_home(tmp_path, monkeypatch, TRAINING__LEAK_COSINE="0.8")
    store_vectors(deployment.store(), embedded, evaluation_queries["text"].tolist())
    below = dg.AssetKey("below")
    assets = [
        table_asset(
            keys.EVALUATION_SET,
            {"queries.parquet": evaluation_queries, "judgments.parquet": corpus_tables.judgments(4)},
        ),
        table_asset(trained, planted),
        table_asset(below, {}, deps=[trained]),
    ]
    (check,) = (check for check in leakage.CHECKS[2:] if {spec.asset_key for spec in check.check_specs} == {trained})
    result, observed = run_checks(deployment, assets, [check])
    evaluation = observed["no_evaluation_query_in_training"]
    assert result.success is evaluation.passed is (reason is None)
    assert (deployment.store().current("below") is None) is (reason is not None)
    if reason:
        assert (
            f"| {query_id} | {text.replace('  ', ' ')} | {reason} | q0 | how does topic 3 work |"
            in shown(evaluation)["examples"]
        )


def test_no_logged_list_is_no_leak(embedded, tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    evaluated = corpus_tables.queries(test=3, dev=1, train=0)
    store_vectors(deployment.store(), embedded, evaluated["text"].tolist())
    assets = [
        table_asset(keys.EVALUATION_SET, {"queries.parquet": evaluated}),
        table_asset(keys.LOGGED_LISTS, {"logged_lists.parquet": corpus_tables.logged_lists(2).head(0)}),
    ]
    result, observed = run_checks(deployment, assets, [leakage.no_evaluation_query_in_logged_lists])
    assert result.success
    assert observed["no_evaluation_query_in_training"].passed


def test_a_changed_corpus_is_looked_at_again(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    assert run_checks(deployment, _assets(), [leakage.references_resolve])[1]["references_resolve"].passed
    fewer = corpus_tables.passages(79)
    assert not run_checks(deployment, _assets(passages=fewer), [leakage.references_resolve])[1][
        "references_resolve"
    ].passed
