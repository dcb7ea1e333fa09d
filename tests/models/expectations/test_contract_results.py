"""Contract results of artifacts: computed once, and again when content or code changes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import models.expectations.contract_results as contracts_cache
from models.errors import ContractError
from models.expectations.contract_results import contract_violations, require_contracts
from models.expectations.steps import CONTRACTS
from models.store.artifacts import Artifact, ArtifactStore
from models.store.tables import write_table


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")


def queries(store: ArtifactStore, *splits: str, other: bytes = b"") -> Artifact:
    """An artifact with one query per split, and a file that has no contract."""
    table = pd.DataFrame(
        {
            "query_id": [f"q{row}" for row in range(len(splits))],
            "text": ["how"] * len(splits),
            "split": list(splits),
        }
    )

    def build(folder: Path) -> dict[str, int]:
        write_table(table, folder / "queries.parquet")
        (folder / "notes.txt").write_bytes(other)
        return {}

    settings = {"splits": list(splits), "other": other.decode()}
    return store.get_or_create("corpus/queries", code_version="1", inputs={}, settings=settings, build=build)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each computation looked at."""
    rows: list[int] = []
    real = contracts_cache.violations

    def spy(table: pd.DataFrame, schema: type) -> pd.DataFrame:
        rows.append(len(table))
        return real(table, schema)

    monkeypatch.setattr(contracts_cache, "violations", spy)
    return rows


def test_rows_that_break_the_contract_are_shown(store: ArtifactStore) -> None:
    result = contract_violations(store, queries(store, "train", "exam", "dev"), "queries.parquet")
    assert (result["count"], result["rows"]) == (1, 3)
    (example,) = result["examples"]
    assert (example["column"], example["value"], example["row"]) == ("split", "exam", "1")


def test_at_most_twenty_are_shown_and_all_are_counted(store: ArtifactStore) -> None:
    result = contract_violations(store, queries(store, *["exam"] * 30), "queries.parquet")
    assert (result["count"], len(result["examples"])) == (30, 20)


def test_the_same_content_is_looked_at_once(store: ArtifactStore, tmp_path: Path, computed: list[int]) -> None:
    artifact = queries(store, "train", "exam")
    first = contract_violations(store, artifact, "queries.parquet")
    assert contract_violations(store, artifact, "queries.parquet") == first
    again = ArtifactStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    assert contract_violations(again, artifact, "queries.parquet") == first
    assert computed == [2]
    contract_violations(store, queries(store, "train"), "queries.parquet")
    assert computed == [2, 1]


def test_changed_contracts_are_held_against_the_table_again(
    store: ArtifactStore, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = queries(store, "train")
    contract_violations(store, artifact, "queries.parquet")
    monkeypatch.setitem(vars(CONTRACTS), "code_version", "another")
    contract_violations(store, artifact, "queries.parquet")
    assert computed == [1, 1]


def test_requiring_names_the_artifact_and_its_rows(store: ArtifactStore) -> None:
    with pytest.raises(ContractError) as raised:
        require_contracts(store, queries(store, "train", "exam"))
    assert "corpus/queries/queries.parquet breaks its contract in 1 places" in str(raised.value)
    assert "row 1: split" in str(raised.value)
    assert raised.value.hint


def test_requiring_what_holds_says_nothing_and_skips_files_without_a_contract(
    store: ArtifactStore, computed: list[int]
) -> None:
    require_contracts(store, queries(store, "train", "dev", other=b"anything"))
    assert computed == [2]
