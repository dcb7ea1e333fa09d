"""The code location: explicit lists, bound to this deployment."""

import dagster as dg

from assets import corpus, evaluation, index, monitoring, release, serving, training
from assets.resources import ArtifactIOManager, Deployment
from checks import all_checks
from orchestration.executor import one_process
from orchestration.jobs import JOBS
from orchestration.schedules import SCHEDULES
from orchestration.sensors import SENSORS

# Its configuration is shown in the launchpad; the IO manager gets the one that the run configured.
deployment = Deployment.configure_at_launch()

defs = dg.Definitions(
    assets=[
        *corpus.ASSETS,
        *index.ASSETS,
        *training.ASSETS,
        *evaluation.ASSETS,
        *release.ASSETS,
        *serving.ASSETS,
        *monitoring.ASSETS,
    ],
    asset_checks=all_checks(),
    jobs=JOBS,
    schedules=SCHEDULES,
    sensors=SENSORS,
    resources={"deployment": deployment, "io_manager": ArtifactIOManager(deployment=deployment)},
    executor=one_process,
)
