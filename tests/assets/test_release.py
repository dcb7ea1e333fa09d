"""The gate and the release by themselves, selected behind a check that failed: refused, with that check named.

The candidate is a good one but for one table that it was made of. Only the two assets run, as when they are selected in
the UI or on the command line; the checks of the tables do not.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets import keys
from models.expectations.contract_results import require_contracts
from models.records.database import Database
from models.records.ledger import Ledger
from models.release.blocking_checks import BLOCKING_CHECKS, judge_origin
from models.settings import load_settings
from models.store.artifacts import Artifact, ArtifactStore
from orchestration.definitions import defs
from tests.checks import corpus_tables
from tests.commands import CLI, run_command
from tests.deployments import use_home
from tests.remade import Changes, remake
from tests.small_bundle import Small, exhibits_for

pytestmark = pytest.mark.heavy

Deploy = Callable[[Changes], ArtifactStore]


def first(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The table with other values in its first row."""
    return table.assign(**{name: [value, *table[name].tolist()[1:]] for name, value in values.items()})


def broken(small: Small) -> dict[str, Changes]:
    """For each blocking check, tables that it fails on."""

    def table(asset: str, file: str) -> pd.DataFrame:
        return small.artifacts[asset].read_table(file)

    def change(asset: str, file: str, **values: object) -> Changes:
        return {asset: {file: first(table(asset, file), **values)}}

    passages = table("corpus/passages", "passages.parquet")
    queries = table("corpus/queries", "queries.parquet")
    judgments = table("corpus/judgments", "judgments.parquet")
    evaluated = table("corpus/evaluation_set", "queries.parquet")
    positive = table("corpus/evaluation_set", "judgments.parquet")
    tested = queries[queries["split"] == "test"].iloc[0]
    trained = queries.index[queries["split"] == "train"][0]
    quarantine, lists = "corpus/quarantined_rows", "training/logged_lists"
    recall = {"kind": "hnsw", "effort": {"ef": 128}, "recall": 0.5, "recall_queries": 25}
    logged = corpus_tables.logged_lists(1)
    return {
        "corpus/passages:contract": change("corpus/passages", "passages.parquet", start=-1),
        "corpus/queries:contract": change("corpus/queries", "queries.parquet", split="exam"),
        "corpus/judgments:contract": change("corpus/judgments", "judgments.parquet", grade=101),
        "corpus/quarantined_rows:contract": {
            quarantine: {"quarantined_rows.parquet": corpus_tables.quarantined_rows(1).assign(reason="")}
        },
        "corpus/quarantined_rows:corrections_contract": {
            quarantine: {"corrections.parquet": corpus_tables.corrections(1).assign(state="forgotten")}
        },
        "corpus/evaluation_set:queries_contract": change("corpus/evaluation_set", "queries.parquet", split="exam"),
        "corpus/evaluation_set:judgments_contract": change("corpus/evaluation_set", "judgments.parquet", grade=101),
        "index/candidates:contract": change("index/candidates", "candidates.parquet", rank=0),
        "index/candidates:training_contract": change("index/candidates", "training_candidates.parquet", dense_rank=-1),
        "training/training_examples:contract": change(
            "training/training_examples", "training_examples.parquet", label=2.0
        ),
        "training/training_examples:development_contract": change(
            "training/training_examples", "development_lists.parquet", kind="easy"
        ),
        "training/training_examples:excluded_queries_contract": {
            "training/training_examples": {
                "excluded_queries.parquet": corpus_tables.excluded_queries(1).assign(reason="unknown")
            }
        },
        "training/logged_lists:contract": {lists: {"logged_lists.parquet": logged.assign(passage="")}},
        "training/logged_lists:excluded_queries_contract": {
            lists: {"excluded_queries.parquet": corpus_tables.excluded_queries(1).assign(overlap=2.0)}
        },
        "corpus/passages:rejected_share": {quarantine: {"quarantined_rows.parquet": corpus_tables.quarantined_rows(9)}},
        "corpus/judgments:references_resolve": change("corpus/judgments", "judgments.parquet", document_id="nowhere"),
        "corpus/queries:splits_are_disjoint": {
            "corpus/queries": {
                "queries.parquet": queries.assign(
                    text=[tested["text"].upper() if row == trained else text for row, text in queries["text"].items()]
                )
            }
        },
        "training/training_examples:no_evaluation_query_in_training": change(
            "training/training_examples", "training_examples.parquet", query=tested["text"]
        ),
        "training/logged_lists:no_evaluation_query_in_training": {
            lists: {"logged_lists.parquet": logged.assign(query=evaluated["text"].iloc[-1])}
        },
        "corpus/passages:expectations": change(
            "corpus/passages", "passages.parquet", end=int(passages["end"].iloc[0]) + 5
        ),
        "corpus/queries:expectations": {
            "corpus/judgments": {"judgments.parquet": first(judgments.assign(grade=0), grade=1)}
        },
        "corpus/judgments:expectations": {
            "corpus/judgments": {"judgments.parquet": judgments.assign(document_id="no " + judgments["document_id"])}
        },
        "corpus/evaluation_set:expectations": {
            "corpus/evaluation_set": {
                "judgments.parquet": positive[positive["query_id"] != tested["query_id"]].reset_index(drop=True)
            }
        },
        "index/dense_index:recall": {"index/dense_index": {"index.json": json.dumps(recall).encode()}},
    }


ALSO = {
    # Judgments of documents that do not exist resolve to nothing and make no query relevant.
    "corpus/judgments:expectations": {"corpus/judgments:references_resolve", "corpus/queries:expectations"},
}
"""Other checks that fail on the same tables."""


def failing(key: str) -> set[str]:
    """What fails with a check: a broken contract keeps the others from looking at the table."""
    check = next(check for check in BLOCKING_CHECKS if check.key == key)
    unsound = {other.key for other in BLOCKING_CHECKS if check.asset in other.reads and not other.is_contract}
    return {key, *ALSO.get(key, ()), *(unsound if check.is_contract else ())}


@pytest.fixture(scope="module")
def evidence(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, ...]:
    """What the good candidate is judged by."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('records') / 'records.db'}")
    database.migrate()
    exhibits = exhibits_for(small, Ledger(database), small.first)
    database.close()
    return (exhibits.evaluation, exhibits.champion_evaluation, exhibits.latency)


def use_deployment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment in `home` under the settings that the candidate was made with."""
    limits = {"OBJECTIVES__P95_MS": "60000", "OBJECTIVES__P99_MS": "60000", "CORPUS__PASSAGE_TOKENS": "48"}
    use_home(home, monkeypatch, CORPUS__OVERLAP_TOKENS="8", **limits)


@pytest.fixture(scope="module")
def checked(small: Small, evidence: tuple[Artifact, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a deployment that has the results of all checks of the sound tables, and their pages."""
    home = tmp_path_factory.mktemp("checked")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_deployment(home, monkeypatch)
        settings = load_settings()
        store = ArtifactStore.of(settings)
        sound = remake(small, store, {}, *evidence)
        findings = judge_origin(store, settings, sound["release/release_candidate"])
        for artifact in sound.values():
            require_contracts(store, artifact)
    assert all(finding.passed for finding in findings.values())
    return home


@pytest.fixture
def deploy(
    small: Small, evidence: tuple[Artifact, ...], checked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deploy:
    """Puts the candidate made of other tables into the deployment in `tmp_path`: only those have to be checked yet."""
    for results in ("artifacts/memo", "reports"):
        shutil.copytree(checked / results, tmp_path / results)
    use_deployment(tmp_path, monkeypatch)

    def put(changes: Changes) -> ArtifactStore:
        store = ArtifactStore.of(load_settings())
        for artifact in remake(small, store, changes, *evidence).values():
            store.point(artifact)
        return store

    return put


def select(*assets: dg.AssetKey) -> dg.ExecuteInProcessResult:
    """Materialize only these assets of the code location, as its UI does."""
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[*assets], raise_on_error=False
        )


def refusing(store: ArtifactStore) -> set[str]:
    """Checks of the recorded decision that refuse."""
    decision = store.require("release/gate_decision").read_json("decision.json")
    assert decision["verdict"] == "refused"
    return {check["name"] for check in decision["checks"] if check["passed"] is False}


def released() -> bool:
    """Whether the deployment has a champion."""
    database = Database(load_settings().database_url)
    try:
        return Ledger(database).current() is not None
    finally:
        database.close()


def why(result: dg.ExecuteInProcessResult) -> str:
    """What the release that failed says."""
    (failure,) = result.get_step_failure_events()
    assert failure.step_key == "release__release"
    assert failure.step_failure_data.user_failure_data is not None
    return str(failure.step_failure_data.user_failure_data.description)


def test_every_blocking_check_has_a_case(small: Small) -> None:
    assert broken(small).keys() == {check.key for check in BLOCKING_CHECKS}


@pytest.mark.parametrize("key", [check.key for check in BLOCKING_CHECKS])
def test_a_failed_check_is_not_gone_around(key: str, small: Small, deploy: Deploy) -> None:
    store = deploy(broken(small)[key])
    decided = select(keys.GATE_DECISION)
    assert not decided.success, "the checks on the decision"
    evaluations = {item.check_name: item for item in decided.get_asset_check_evaluations()}
    group = "contracts_hold" if key.endswith("contract") else "blocking_checks_hold"
    assert not evaluations[group].passed
    assert f"{key}: " in str(evaluations[group].description)
    assert refusing(store) == failing(key)

    result = select(keys.RELEASE)
    assert not result.success
    advice = next(check.advice for check in BLOCKING_CHECKS if check.key == key)
    assert f"\n{key}: " in why(result)
    assert advice in why(result)
    assert not released()


def test_both_at_once_release_nothing_either(small: Small, deploy: Deploy) -> None:
    deploy(broken(small)["corpus/passages:rejected_share"])
    assert not select(keys.GATE_DECISION, keys.RELEASE).success
    assert not released()


def test_the_same_candidate_of_sound_tables_is_released_and_judged_again_when_it_is(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = deploy({"corpus/quarantined_rows": {"quarantined_rows.parquet": corpus_tables.quarantined_rows(1)}})
    assert select(keys.GATE_DECISION).success
    assert store.require("release/gate_decision").read_json("decision.json")["verdict"] == "released"
    monkeypatch.setenv("RERANKOPS_CORPUS__MAX_REJECTED_SHARE", "0")
    assert "corpus/passages:rejected_share: " in why(select(keys.RELEASE)), "the limit of now counts"
    assert not released()
    monkeypatch.delenv("RERANKOPS_CORPUS__MAX_REJECTED_SHARE")
    assert select(keys.RELEASE).success
    assert released()


@pytest.mark.parametrize(
    "command",
    [
        ("dagster", "asset", "materialize", "--select", "key:release/gate_decision", "-m", "orchestration.definitions"),
        (CLI, "run", "--select", 'key:"release/gate_decision" or key:"release/release"'),
    ],
    ids=["dagster", "rerankops"],
)
def test_the_command_line_releases_nothing_either(
    command: tuple[str, ...], small: Small, deploy: Deploy, tmp_path: Path
) -> None:
    key = "corpus/judgments:references_resolve"
    store = deploy(broken(small)[key])
    (tmp_path / "dagster").mkdir()
    module, *arguments = command
    result = run_command(*arguments, env=os.environ | {"DAGSTER_HOME": str(tmp_path / "dagster")}, module=module)
    assert result.returncode != 0
    assert f"{key}: 1 judgments name a query or document that does not exist" in result.stdout + result.stderr
    assert refusing(store) == {key}
    assert not released()
