"""Assets that write given tables to a real artifact store, and runs of checks over them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.keys import artifact_name
from assets.resources import ArtifactIOManager, Deployment
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import digest_json
from models.store.tables import write_table

Tables = Mapping[str, pd.DataFrame]


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> Deployment:
    """A deployment in `home` with default settings, apart from `RERANKOPS_...` given by name."""
    file = home / "rerankops.toml"
    file.write_text("[presets.demo]\n", encoding="utf-8")
    monkeypatch.setenv("RERANKOPS_HOME", str(home))
    monkeypatch.setenv("RERANKOPS_SETTINGS", str(file))
    for name, value in settings.items():
        monkeypatch.setenv(f"RERANKOPS_{name}", value)
    return Deployment()


def write_artifact(
    store: ArtifactStore,
    asset: str,
    tables: Tables,
    files: Mapping[str, bytes] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Artifact:
    """Put tables and files into the store as a new version of `asset`, made from `inputs`."""

    def build(folder: Path) -> dict[str, Any]:
        for name, table in tables.items():
            write_table(table, folder / name)
        for name, data in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return {}

    content = {name: table.to_json(date_format="iso") for name, table in tables.items()} | {
        name: data.decode() for name, data in (files or {}).items()
    }
    return store.get_or_create(
        asset, code_version="1", inputs={**(inputs or {}), "content": digest_json(content)}, settings={}, build=build
    )


def table_asset(key: dg.AssetKey, tables: Tables, deps: Sequence[dg.AssetKey] = ()) -> dg.AssetsDefinition:
    """An asset that writes `tables` when it is materialized."""

    @dg.asset(key=key, deps=list(deps), io_manager_key="io_manager")
    def made(deployment: Deployment) -> Artifact:
        return write_artifact(deployment.store(), artifact_name(key), tables)

    return made


def shown(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """Metadata of an evaluation as plain values."""
    return {name: value.value for name, value in evaluation.metadata.items()}


def run_checks(
    deployment: Deployment,
    assets: Sequence[dg.AssetsDefinition],
    checks: Sequence[dg.AssetChecksDefinition],
    **options: Any,
) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetCheckEvaluation]]:
    """Materialize the assets with their checks; evaluations by check name."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [*assets, *checks],
            resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
            instance=options.pop("instance", instance),
            raise_on_error=False,
            **options,
        )
        return result, {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
