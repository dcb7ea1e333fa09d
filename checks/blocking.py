"""Dagster's side of the blocking checks that `models.release.blocking_checks` declares."""

import dagster as dg

from assets import keys
from assets.resources import Deployment
from checks.results import result_of
from models.release.blocking_checks import BLOCKING_CHECKS

_BY_NAME = {(check.asset, check.name): check for check in BLOCKING_CHECKS}


def blocking_check(asset: dg.AssetKey, name: str, *waits_for: dg.AssetKey) -> dg.AssetChecksDefinition:
    """The declared check `name` of `asset`, on the current artifacts; in a run it waits for other assets too.

    Raises `KeyError` where none is declared, so that Dagster blocks on nothing that the gate does not know.
    """
    declared = _BY_NAME[keys.artifact_name(asset), name]

    @dg.asset_check(
        asset=asset,
        name=name,
        description=declared.description,
        additional_deps=list(waits_for) or None,
        blocking=True,
    )
    def check(deployment: Deployment) -> dg.AssetCheckResult:
        store = deployment.store()
        artifacts = {read: store.require(read) for read in declared.reads}
        return result_of(declared.judge(store, deployment.settings(), artifacts))

    return check
