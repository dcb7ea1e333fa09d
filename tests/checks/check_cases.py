"""Assets that write given tables to a real artifact store, and runs of checks over them."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.keys import artifact_name
from assets.resources import ArtifactIOManager, Deployment
from models.store.artifacts import Artifact
from tests.deployments import Tables, write_artifact


def table_asset(key: dg.AssetKey, tables: Tables, deps: Sequence[dg.AssetKey] = ()) -> dg.AssetsDefinition:
    """An asset that writes `tables` when it is materialized."""

    @dg.asset(key=key, deps=list(deps), io_manager_key="io_manager")
    def made(deployment: Deployment) -> Artifact:
        return write_artifact(deployment.store(), artifact_name(key), tables)

    return made


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
