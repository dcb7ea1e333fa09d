"""Jobs: named selections, and the rollback."""

import dagster as dg
from pydantic import ConfigDict, Field

from assets import keys
from assets.policies import REGISTRY_POOL
from assets.resources import Deployment

_TAGS = {"team": "ranking"}
_MONITORING = dg.AssetSelection.groups(keys.MONITORING)

lifecycle = dg.define_asset_job(
    "lifecycle",
    selection=dg.AssetSelection.all() - _MONITORING,
    description="From the corpus to the served release; unchanged stages are reused.",
    tags=_TAGS,
)
refresh_index = dg.define_asset_job(
    "refresh_index",
    selection=dg.AssetSelection.groups(keys.CORPUS, keys.INDEX),
    description="Read the corpus again and rebuild what changed in the indexes.",
    tags=_TAGS,
)
retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.groups(keys.TRAINING, keys.EVALUATION, keys.RELEASES, keys.SERVING),
    description="Train, evaluate, gate and release on the current corpus and indexes.",
    tags=_TAGS,
)

monitor = dg.define_asset_job(
    "monitor",
    selection=_MONITORING,
    description="Decision log and drift report of one day.",
    tags=_TAGS,
)


class RollbackConfig(dg.Config):
    """What to roll back to, and why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="rolled back from Dagster", description="Why, for the ledger.")
    to: str = Field(default="", description="Release id; empty is the release before.")


@dg.op(pool=REGISTRY_POOL)
def restore_previous_release(context: dg.OpExecutionContext, config: RollbackConfig, deployment: Deployment) -> None:
    """Restore the whole bundle of the release before, or of release `to`, and make the running service serve it."""
    from models.serving.roll_out import roll_back

    done = roll_back(
        deployment.settings(),
        deployment.store(),
        deployment.database(),
        actor=f"dagster run {context.run_id}",
        reason=config.reason,
        to=config.to or None,
    )
    restored = done.release
    context.log.info(f"{restored.release_id}: bundle {restored.bundle_version}, version {restored.model_version}")
    context.log.info(done.message)


@dg.job(description="Restore the previous release: models, calibration, tiers, index and settings.", tags=_TAGS)
def rollback() -> None:
    """One op: the ledger and the aliases move, an incident opens, and the running service follows."""
    restore_previous_release()


JOBS = [lifecycle, refresh_index, retrain, monitor, rollback]
