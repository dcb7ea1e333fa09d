"""The corpus assets, materialized over a folder of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets import corpus, keys
from assets.resources import ArtifactIOManager, Deployment
from models.corpus.quarantine import quarantined_rows, readmit
from models.store.artifacts import Artifact
from models.store.durable_files import digest_file
from tests.deployments import use_home

pytestmark = pytest.mark.heavy

QUERIES = '{"query_id": "q1", "text": "What moves water?", "split": "test"}\n{"query_id": "q2", "text": " "}\n'
JUDGMENTS = '{"query_id": "q1", "document_id": "pumps.md", "grade": 1}\n'


@pytest.fixture
def handbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "pumps.md").write_text("# Pumps\n\nA pump moves a liquid.")
    (folder / "valves.txt").write_text("A valve stops a flow.")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    monkeypatch.setenv("RERANKOPS_CORPUS__SOURCE", "folder")
    monkeypatch.setenv("RERANKOPS_CORPUS__PATH", str(folder))
    monkeypatch.setenv("RERANKOPS_TRAINING__PSEUDO_QUERIES", "off")
    return folder


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    (tmp_path / "home").mkdir()
    return use_home(tmp_path / "home", monkeypatch)


def _materialize(
    deployment: Deployment, raise_on_error: bool = True, selection: list[dg.AssetKey] | None = None
) -> dg.ExecuteInProcessResult:
    resources = {"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)}
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            corpus.ASSETS,
            resources=resources,
            instance=instance,
            raise_on_error=raise_on_error,
            selection=selection,
        )


def _table(deployment: Deployment, key: dg.AssetKey, name: str) -> pd.DataFrame:
    return deployment.store().require("/".join(key.path)).read_table(f"{name}.parquet")


def test_a_folder_becomes_tables_and_what_cannot_be_read_is_quarantined(
    tmp_path: Path, handbook: Path, deployment: Deployment
) -> None:
    (handbook / "queries.jsonl").write_text(QUERIES)
    (handbook / "judgments.jsonl").write_text(JUDGMENTS)
    result = _materialize(deployment)
    assert list(_table(deployment, keys.PASSAGES, "passages")["passage_id"]) == ["pumps.md", "valves.txt"]
    assert list(_table(deployment, keys.JUDGMENTS, "judgments")["document_id"]) == ["pumps.md"]
    refused = _table(deployment, keys.QUARANTINED_ROWS, "quarantined_rows")
    assert refused[["position", "reason"]].to_numpy().tolist() == [
        ["latin.txt", "not UTF-8 at byte 3"],
        ["queries.jsonl:2", "text: missing"],
    ]
    [event] = result.asset_materializations_for_node("corpus__read")[:1]
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    passages = _table(deployment, keys.PASSAGES, "passages")
    assert [column.name for column in schema.columns] == passages.columns.tolist()
    assert next(column.type for column in schema.columns if column.name == "passage_id") == "string"
    assert event.metadata["dagster/row_count"].value == 2
    assert len(_table(deployment, keys.EVALUATION_SET, "queries")) == 1
    built = {path.name for path in (tmp_path / "home" / "artifacts" / "tmp").glob("*/*")}
    assert not built

    files = {path: digest_file(path) for path in (tmp_path / "home" / "artifacts" / "objects").rglob("*.parquet")}
    _materialize(deployment)
    assert files == {
        path: digest_file(path) for path in (tmp_path / "home" / "artifacts" / "objects").rglob("*.parquet")
    }


def test_a_corrected_row_is_read_by_the_next_run_and_shown(
    tmp_path: Path, handbook: Path, deployment: Deployment
) -> None:
    (handbook / "queries.jsonl").write_text(QUERIES)
    (handbook / "judgments.jsonl").write_text(JUDGMENTS)
    before = _quarantine_metadata(_materialize(deployment))
    assert [record.data for record in before["by_rule"].records] == [
        {"table": "documents", "rule": "encoding", "rows": 1},
        {"table": "queries", "rule": "missing", "rows": 1},
    ]
    assert [record.data["position"] for record in before["first_rows"].records] == ["latin.txt", "queries.jsonl:2"]
    artifact = deployment.store().require("corpus/quarantined_rows")
    rows = {row.position: row.row_id for row in quarantined_rows(artifact)}
    fixed = {
        "latin.txt": {"document_id": "latin.txt", "text": "Café."},
        "queries.jsonl:2": {"query_id": "q2", "text": "What stops a flow?"},
    }
    lines = [json.dumps({"row_id": rows[position], "row": row}) for position, row in fixed.items()]
    (tmp_path / "fixed.jsonl").write_text("\n".join(lines))
    readmit(tmp_path / "fixed.jsonl", "folder", artifact, deployment.database(), actor="ann")

    after = _quarantine_metadata(_materialize(deployment))
    assert after["by_rule"].records == []
    assert (after["corrections_applied"].value, after["corrections_lapsed"].value) == (2, 0)
    assert set(_table(deployment, keys.PASSAGES, "passages")["document_id"]) == {"latin.txt", "pumps.md", "valves.txt"}
    assert set(_table(deployment, keys.QUERIES, "queries")["query_id"]) == {"q1", "q2"}

    (handbook / "latin.txt").write_text("Mended in the source.")
    lapsed = _quarantine_metadata(_materialize(deployment))
    assert (lapsed["corrections_applied"].value, lapsed["corrections_lapsed"].value) == (1, 1)
    assert "Mended in the source." in set(_table(deployment, keys.PASSAGES, "passages")["text"])


def _quarantine_metadata(result: dg.ExecuteInProcessResult) -> Any:
    observed = result.asset_materializations_for_node("corpus__read")
    return next(event.metadata for event in observed if event.asset_key == keys.QUARANTINED_ROWS)


def test_without_judgments_there_are_passages_and_what_evaluates_says_what_it_needs(
    handbook: Path, deployment: Deployment
) -> None:
    result = _materialize(deployment, raise_on_error=False)
    assert not result.success
    assert len(_table(deployment, keys.PASSAGES, "passages")) == 2
    [failure] = result.all_node_events[-1:] and [event for event in result.all_node_events if event.is_step_failure]
    assert failure.node_name == "corpus__evaluation_set"
    assert "the corpus has no judgment that a document is relevant" in str(failure.event_specific_data)
    assert "docs/sources.md" in str(failure.event_specific_data)


def test_one_reading_is_kept_whole_though_only_its_passages_are_selected(
    handbook: Path, deployment: Deployment
) -> None:
    result = _materialize(deployment, selection=[keys.PASSAGES])
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [keys.PASSAGES]
    refused = _table(deployment, keys.QUARANTINED_ROWS, "quarantined_rows")
    assert refused["position"].tolist() == ["latin.txt"]


def test_a_folder_without_judgments_goes_through_on_queries_made_from_its_text(
    handbook: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_machines(handbook, range(60))
    monkeypatch.setenv("RERANKOPS_TRAINING__PSEUDO_QUERIES", "auto")
    result = _materialize(deployment)
    queries = _table(deployment, keys.QUERIES, "queries")
    assert {"title", "sentence"} <= set(queries["kind"])
    assert set(queries["split"]) == {"train", "dev", "test"}
    evaluated = _table(deployment, keys.EVALUATION_SET, "queries")
    assert set(evaluated["kind"]) <= {"title", "heading", "sentence", "cloze"}
    assert set(evaluated["split"]) == {"dev", "test"}
    [event] = result.asset_materializations_for_node("corpus__read")[:1]
    assert event.metadata["pseudo_queries_title"].value == sum(queries["kind"] == "title")

    (handbook / "queries.jsonl").write_text(QUERIES)
    (handbook / "judgments.jsonl").write_text(JUDGMENTS)
    _materialize(deployment)
    queries = _table(deployment, keys.QUERIES, "queries")
    assert queries.loc[queries["split"] == "test", "kind"].tolist() == ["given"], "a judged split has none made"
    assert set(queries.loc[queries["kind"] != "given", "split"]) == {"train", "dev"}


def test_evaluated_queries_stay_as_the_corpus_grows_and_a_past_corpus_gets_its_set_back(
    handbook: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANKOPS_TRAINING__PSEUDO_QUERIES", "auto")
    monkeypatch.setenv("RERANKOPS_EVALUATION__MAX_TEST_QUERIES", "6")
    _add_machines(handbook, range(30))
    _materialize(deployment)
    store = deployment.store()
    past = store.require("corpus/passages").data_version
    first = store.require("corpus/evaluation_set")
    _add_machines(handbook, range(30, 60))
    _materialize(deployment)
    second = store.require("corpus/evaluation_set")
    assert second.manifest.inputs["previous"] == first.data_version
    splits = [dict(zip(t["query_id"], t["split"], strict=True)) for t in map(_queries, (first, second))]
    assert splits[0].items() < splits[1].items()
    assert list(splits[1].values()).count("test") == 6

    monkeypatch.setenv("RERANKOPS_CORPUS__VERSION", past)
    _materialize(deployment)
    assert store.require("corpus/evaluation_set").manifest == first.manifest
    monkeypatch.delenv("RERANKOPS_CORPUS__VERSION")
    _materialize(deployment)
    assert store.require("corpus/evaluation_set").manifest == second.manifest


def _add_machines(handbook: Path, places: range) -> None:
    for number in places:
        text = (
            f"# Machine number {number}\n\nThe machine {number} stands in hall {number % 7}. It weighs {number} tons."
        )
        (handbook / f"machine{number}.md").write_text(text)


def _queries(evaluation_set: Artifact) -> pd.DataFrame:
    return evaluation_set.read_table("queries.parquet")
