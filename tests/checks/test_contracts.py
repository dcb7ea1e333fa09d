"""Contract checks over real artifacts: one good and one bad table each, and what a failure stops."""

import dagster as dg
import pandas as pd
import pytest

from assets import keys
from assets.resources import Deployment
from checks import contracts, leakage
from models.monitoring.decision_log import decision_table
from models.store.artifacts import ArtifactStore
from tests.checks import corpus_tables
from tests.checks.check_cases import run_checks, table_asset
from tests.deployments import shown, use_home, write_artifact
from tests.traffic import decision

pytestmark = pytest.mark.heavy

_CANDIDATES = pd.DataFrame(
    {
        "query_id": ["q0"],
        "passage_id": ["d0#0"],
        "document_id": ["d0"],
        "rank": [1],
        "retriever_score": [0.03],
        "dense_score": [0.7],
        "lexical_score": [4.0],
    }
)
_CASES = {
    "passages": (keys.PASSAGES, "passages.parquet", corpus_tables.passages(), {"text": ""}),
    "queries": (keys.QUERIES, "queries.parquet", corpus_tables.queries(), {"split": "validation"}),
    "judgments": (keys.JUDGMENTS, "judgments.parquet", corpus_tables.judgments(), {"grade": -1}),
    "quarantined_rows": (
        keys.QUARANTINED_ROWS,
        "quarantined_rows.parquet",
        corpus_tables.quarantined_rows(3),
        {"reason": ""},
    ),
    "corrections": (
        keys.QUARANTINED_ROWS,
        "corrections.parquet",
        corpus_tables.corrections(2),
        {"state": "forgotten"},
    ),
    "evaluation_queries": (keys.EVALUATION_SET, "queries.parquet", corpus_tables.queries(), {"query_id": " q"}),
    "evaluation_judgments": (keys.EVALUATION_SET, "judgments.parquet", corpus_tables.judgments(), {"grade": 101}),
    "candidates": (keys.CANDIDATES, "candidates.parquet", _CANDIDATES, {"rank": 0}),
    "training_candidates": (
        keys.CANDIDATES,
        "training_candidates.parquet",
        _CANDIDATES.assign(dense_rank=1, lexical_rank=0),
        {"lexical_rank": -1},
    ),
    "training_examples": (
        keys.TRAINING_EXAMPLES,
        "training_examples.parquet",
        corpus_tables.training_examples(),
        {"label": 2.0},
    ),
    "development_lists": (
        keys.TRAINING_EXAMPLES,
        "development_lists.parquet",
        corpus_tables.training_examples(),
        {"kind": "easy"},
    ),
    "excluded_queries": (
        keys.TRAINING_EXAMPLES,
        "excluded_queries.parquet",
        corpus_tables.excluded_queries(),
        {"reason": "unknown"},
    ),
    "logged_lists": (keys.LOGGED_LISTS, "logged_lists.parquet", corpus_tables.logged_lists(), {"passage": ""}),
    "excluded_logged_queries": (
        keys.LOGGED_LISTS,
        "excluded_queries.parquet",
        corpus_tables.excluded_queries(),
        {"overlap": 2.0},
    ),
    "decision_log": (
        keys.DECISION_LOG,
        "decision_log.parquet",
        decision_table([decision("d1"), decision("d2")]),
        {"top_score": 1.5},
    ),
}


_OF_TABLE = {
    (spec.asset_key, str(spec.description).split()[3]): check
    for check in contracts.CHECKS
    for spec in check.check_specs
    if spec.name.endswith("contract")
}
"""The check of each (asset, table), by its description: `Every row of <table> holds its data contract`."""


def _check_of(key: dg.AssetKey, table: str) -> dg.AssetChecksDefinition:
    return _OF_TABLE[key, table]


def test_every_contract_has_a_case() -> None:
    assert {(key, table) for key, table, _, _ in _CASES.values()} == set(_OF_TABLE)


@pytest.mark.parametrize("case", _CASES)
def test_a_good_table_passes_and_a_bad_row_stops_the_run(case, tmp_path, monkeypatch) -> None:
    key, file, good, change = _CASES[case]
    ((column, value),) = change.items()
    bad = good.assign(**{column: [value, *good[column].tolist()[1:]]})
    deployment = use_home(tmp_path, monkeypatch)
    check = _check_of(key, file)

    result, observed = run_checks(deployment, [table_asset(key, {file: good})], [check])
    (evaluation,) = observed.values()
    assert result.success
    assert evaluation.passed
    assert shown(evaluation)["violations"] == 0

    below = dg.AssetKey("below")
    result, observed = run_checks(
        deployment, [table_asset(key, {file: bad}), table_asset(below, {}, deps=[key])], [check]
    )
    (evaluation,) = observed.values()
    assert not result.success
    assert not evaluation.passed
    assert shown(evaluation)["violations"] == 1
    assert column in shown(evaluation)["examples"]
    assert deployment.store().current("below") is None


def test_an_unchanged_artifact_is_checked_once(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch)
    asset = table_asset(keys.QUERIES, {"queries.parquet": corpus_tables.queries()})
    check = _check_of(keys.QUERIES, "queries.parquet")
    run_checks(deployment, [asset], [check])

    def refuse(*_: object) -> None:
        raise AssertionError("the table was checked again")

    monkeypatch.setattr("models.expectations.contract_results.violations", refuse)
    _, result = run_checks(deployment, [asset], [check])
    assert result["contract"].passed


def _corpus(refused: int) -> dg.AssetsDefinition:
    """The corpus with `refused` refused rows, made by one step as in assets/corpus.py."""
    tables = {
        keys.PASSAGES: corpus_tables.passages(98),
        keys.QUERIES: corpus_tables.queries(),
        keys.JUDGMENTS: corpus_tables.judgments(),
        keys.QUARANTINED_ROWS: corpus_tables.quarantined_rows(refused),
    }

    @dg.multi_asset(outs={key.path[-1]: dg.AssetOut(key=key, io_manager_key="io_manager") for key in tables})
    def corpus(deployment: Deployment):
        for key, table in tables.items():
            name = key.path[-1]
            artifact = write_artifact(deployment.store(), keys.artifact_name(key), {f"{name}.parquet": table})
            yield dg.Output(artifact, output_name=name)

    return corpus


def test_rejected_share_is_held_against_its_setting(tmp_path, monkeypatch) -> None:
    deployment = use_home(tmp_path, monkeypatch, CORPUS__MAX_REJECTED_SHARE="0.02")
    _, observed = run_checks(deployment, [_corpus(refused=2)], [contracts.rejected_share])
    assert observed["rejected_share"].passed
    assert shown(observed["rejected_share"])["value"] == pytest.approx(0.02)

    result, observed = run_checks(deployment, [_corpus(refused=3)], [contracts.rejected_share])
    assert not result.success
    assert not observed["rejected_share"].passed
    assert shown(observed["rejected_share"])["value"] == pytest.approx(3 / 101)
    assert shown(observed["rejected_share"])["threshold"] == 0.02
    assert "corpus.jsonl:2" in shown(observed["rejected_share"])["examples"]

    monkeypatch.setenv("RERANKOPS_CORPUS__MAX_REJECTED_SHARE", "0.05")
    assert run_checks(deployment, [_corpus(refused=3)], [contracts.rejected_share])[1]["rejected_share"].passed


def test_too_many_refused_rows_stop_what_is_made_from_the_passages(tmp_path, monkeypatch) -> None:
    """Also the check of judgments, which waits for passages. Waiting for outputs of one step must not be a cycle."""
    deployment = use_home(tmp_path, monkeypatch)
    below = table_asset(dg.AssetKey("below"), {}, deps=[keys.PASSAGES])
    assets, checks = [_corpus(refused=9), below], [contracts.rejected_share, *leakage.CHECKS[:2]]
    result, observed = run_checks(deployment, assets, checks)
    assert {name: evaluation.passed for name, evaluation in observed.items()} == {
        "rejected_share": False,
        "splits_are_disjoint": True,
    }
    assert not result.success
    assert ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache").current("below") is None
