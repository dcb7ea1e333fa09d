"""Runs of the command line in this process: what is selected, what is said, and how each ending is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from models.errors import RerankOpsError
from models.settings import load_settings
from models.store.artifacts import ArtifactStore
from orchestration.definitions import defs
from orchestration.lifecycle import FAILED, RELEASED, Outcome, run_lifecycle, select_assets
from tests.deployments import use_home
from tests.docs_corpus import docs_settings, write_docs_corpus

pytestmark = pytest.mark.heavy

JOB = defs.resolve_job_def("lifecycle")


@dataclass
class Seen:
    """Remembers what a run says."""

    lines: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def started(self, step: str) -> None:
        self.steps.append(step)

    def said(self, line: str) -> None:
        self.lines.append(line)

    def ended(self, step: str) -> None:
        assert step in self.steps


Run = Callable[..., tuple[Outcome, Seen]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a selection on a corpus in `tmp_path / "docs"`, with settings by dotted key."""
    use_home(tmp_path, monkeypatch)
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that it is put back
    write_docs_corpus(tmp_path / "docs", documents=120)

    def run(selection: str, **changes: str) -> tuple[Outcome, Seen]:
        for key, value in {**docs_settings(tmp_path / "docs"), **changes}.items():
            monkeypatch.setenv(f"RERANKOPS_{key.upper().replace('.', '__')}", value)
        seen = Seen()
        return run_lifecycle(load_settings(), selection, seen), seen

    return run


@pytest.mark.parametrize(
    ("selection", "assets"),
    [
        ("corpus/passages", {"corpus/passages"}),
        (
            "group:training",
            {
                "training/training_examples",
                "training/logged_lists",
                "training/large_reranker",
                "training/compact_reranker",
                "training/scoring_engines",
            },
        ),
        ('+key:"index/lexical_index"', {"corpus/passages", "index/lexical_index"}),
        ("kind:fastapi", {"serving/online_scoring"}),
    ],
)
def test_a_selection_of_dagster_is_understood(selection: str, assets: set[str]) -> None:
    chosen, left_out = select_assets(defs, JOB, selection)
    assert {key.to_user_string() for key in chosen or ()} == assets
    assert left_out == []


def test_what_is_made_per_day_is_left_out_and_named() -> None:
    chosen, left_out = select_assets(defs, JOB, "*")
    assert set(chosen or ()) == set(JOB.asset_layer.executable_asset_keys)
    assert left_out == ["monitoring/decision_log", "monitoring/drift_report"]


@pytest.mark.parametrize(
    ("selection", "message", "hint"),
    [
        ("passages", "is no selection that Dagster understands", "Did you mean corpus/passages?"),
        ("corpus/pasages", "is no selection that Dagster understands", "Did you mean corpus/passages"),
        ("group:corpora", "selects no asset", "group:corpus, group:evaluation"),
        ("tag:gpu", "selects no asset", "Name an asset (corpus/passages)"),
        ("((", "is no selection that Dagster understands", "Name an asset (corpus/passages)"),
        ("", "is no selection that Dagster understands", "Name an asset (corpus/passages)"),
        ("group:monitoring", "monitoring/decision_log, monitoring/drift_report is not part", "materialize that day's"),
    ],
)
def test_a_selection_of_nothing_is_an_error_that_says_what_there_is(selection: str, message: str, hint: str) -> None:
    with pytest.raises(RerankOpsError) as raised:
        select_assets(defs, JOB, selection)
    assert raised.value.message.startswith(f"--select {selection}: ")
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_a_part_of_the_lifecycle_is_made_and_told(run: Run, tmp_path: Path) -> None:
    outcome, seen = run("group:corpus")
    assert (outcome.verdict, outcome.code, outcome.failures) == ("made", RELEASED, {})
    assert {"corpus__read", "corpus__evaluation_set", "corpus__passages_contract"} <= set(seen.steps)
    assert outcome.seconds.keys() == set(seen.steps)
    assert [line for line in seen.lines if "corpus/passages" in line and "made in" in line]
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    assert len(store.require("corpus/passages").read_table("passages.parquet")) >= 120
    with dg.DagsterInstance.get() as instance:
        result = instance.get_run_by_id(outcome.run_id)
        assert result is not None
        assert (result.job_name, result.status) == ("lifecycle", dg.DagsterRunStatus.SUCCESS)

    again, seen = run("group:corpus")
    assert again.verdict == "made"
    assert [line for line in seen.lines if "made in" in line] == []
    assert len([line for line in seen.lines if "unchanged, reused" in line]) == 5


def test_a_planted_rewording_of_an_evaluated_query_does_not_train_and_a_second_run_makes_nothing(
    run: Run, tmp_path: Path
) -> None:
    upstream_of_training = '+key:"training/training_examples"'
    run("group:corpus")
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    evaluated = store.require("corpus/evaluation_set").read_table("queries.parquet")
    repeated = evaluated[evaluated["split"] == "test"].iloc[0]
    document = store.require("corpus/judgments").read_table("judgments.parquet")["document_id"].iloc[0]
    planted = {
        "query_id": "planted", "text": " ".join(reversed(repeated["text"].rstrip("?").split())), "split": "train",
    }  # fmt: skip
    _add(tmp_path / "docs" / "queries.jsonl", planted)
    _add(tmp_path / "docs" / "judgments.jsonl", {"query_id": "planted", "document_id": document, "grade": 1})

    outcome, seen = run(upstream_of_training)
    assert outcome.verdict == "made", outcome.failures
    assert "training__training_examples_no_evaluation_query_in_training" in seen.steps
    examples = store.require("training/training_examples")
    excluded = examples.read_table("excluded_queries.parquet").set_index("query_id")
    assert list(excluded.loc["planted", ["reason", "evaluation_query_id"]]) == ["same_words", repeated["query_id"]]
    trained = set(examples.read_table("training_examples.parquet")["query_id"])
    assert trained
    assert not trained & {*excluded.index, *evaluated["query_id"]}

    outcome, seen = run(upstream_of_training)
    assert outcome.verdict == "made"
    assert [line for line in seen.lines if "made in" in line] == []


def _add(table: Path, row: Mapping[str, object]) -> None:
    with table.open("a") as file:
        file.write(json.dumps(row) + "\n")


def test_a_broken_contract_fails_and_shows_the_rows(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "docs" / "documents.jsonl").open("a") as file:
        file.write('{"document_id": "empty", "text": ""}\n' * 9)
    outcome, _ = run("group:corpus")
    assert (outcome.verdict, outcome.code) == ("failed", FAILED)
    reason = outcome.failures["corpus/passages"]
    assert reason.startswith("rejected_share: ")
    assert "| documents |" in reason


def test_a_missing_source_fails_and_says_which_setting(run: Run, tmp_path: Path) -> None:
    outcome, seen = run("group:corpus", **{"corpus.files.queries": "questions.jsonl"})
    assert (outcome.verdict, outcome.code) == ("failed", FAILED)
    reason = outcome.failures["corpus__read"]
    assert "questions.jsonl" in reason
    assert "corpus.files.queries" in reason
    assert "models.errors" not in reason, "an expected error is told without its class"
    assert "Traceback" not in reason
    assert not [line for line in seen.lines if "tried again" in line], "waiting does not help"


def test_what_is_upstream_and_missing_is_named(run: Run) -> None:
    outcome, _ = run("index/lexical_index")
    assert outcome.code == FAILED
    assert "corpus/passages has not been made yet" in outcome.failures["index__lexical_index"]
