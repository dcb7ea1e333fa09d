"""Serving: the running service takes over the release."""

from typing import TYPE_CHECKING

import dagster as dg

from assets import keys
from assets.policies import NO_CONFIG, OWNERS, READ_RETRIES, WHEN_INPUTS_CHANGE, no_retries_of_what_is_certain
from assets.resources import Deployment

if TYPE_CHECKING:
    from models.serving.roll_out import RollOut

_SERVES_RELEASE = "service_serves_release"


@dg.asset(
    key=keys.ONLINE_SCORING,
    group_name=keys.SERVING,
    kinds={"fastapi"},
    owners=OWNERS,
    config_schema=NO_CONFIG,
    deps=[keys.RELEASE],
    automation_condition=WHEN_INPUTS_CHANGE,
    retry_policy=READ_RETRIES,
    check_specs=[
        dg.AssetCheckSpec(
            _SERVES_RELEASE, asset=keys.ONLINE_SCORING, description="The running service serves the champion."
        )
    ],
)
@no_retries_of_what_is_certain()
def online_scoring(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
    """The champion in the running service: hot-swapped, warmed, its golden queries asked and timed. Without a
    service, it says so."""
    from models.serving.roll_out import roll_out

    state = roll_out(deployment.settings(), deployment.store(), deployment.database())
    return dg.MaterializeResult(
        metadata={
            "release_id": state.release_id,
            "served": state.served_release is not None,
            "seconds_to_serve": state.seconds,
            "p50_latency_ms": state.p50_ms,
            "p95_latency_ms": state.p95_ms,
            "golden_queries": state.golden_queries,
        },
        check_results=[_serves_release(state)],
    )


def _serves_release(state: "RollOut") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=_SERVES_RELEASE,
        passed=state.complete,
        severity=dg.AssetCheckSeverity.WARN,
        description=state.message,
        metadata={"served_release": state.served_release or "none"},
    )


ASSETS = [online_scoring]
