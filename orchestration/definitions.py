"""The code location: explicit lists, bound to this deployment."""

import dagster as dg

from assets import corpus, evaluation, index, release, serving, training
from assets.resources import ArtifactIOManager, Deployment
from checks import all_checks
from orchestration.jobs import JOBS
from orchestration.schedules import SCHEDULES
from orchestration.sensors import SENSORS

deployment = Deployment()

defs = dg.Definitions(
    assets=[*corpus.ASSETS, *index.ASSETS, *training.ASSETS, *evaluation.ASSETS, *release.ASSETS, *serving.ASSETS],
    asset_checks=all_checks(),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
    # One process per run: the heavy imports are paid once, and the models share the machine.
    executor=dg.in_process_executor,
)
