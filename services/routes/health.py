"""GET /health, /health/ready and /metrics: open, and free of anything that a stranger should not read; and
GET /v1/objectives, with the key.

None of them waits for a thread of those that read the database: a supervisor would end a service that works.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from models.serving.protocol import ServedVersions
from services.auth import NEEDS_KEY, bearer_token
from services.context import Context
from services.errors import error_responses
from services.schemas import DecisionLogState, HealthResponse, LoadFailure, ServedObjectives

router = APIRouter()


@router.get("/health")
async def health(request: Request, context: Context) -> HealthResponse:
    """Alive, and what is served. With the key, a failed load also says why."""
    watcher = context.watcher
    served, fault = watcher.served, watcher.fault
    failure = None
    if fault is not None:
        known = context.key(bearer_token(request.headers))
        failure = LoadFailure(
            release_id=fault.release_id,
            error=fault.error,
            at=fault.at.isoformat(timespec="seconds"),
            attempts=fault.attempts,
            message=fault.message if known else None,
        )
    outage, unrecorded = watcher.outage, context.writer.failure
    states = {"unrecorded": unrecorded, "stale": failure, "remembered": watcher.remembered, "lean": outage}
    return HealthResponse(
        status="no_release" if served is None else next((name for name, holds in states.items() if holds), "ok"),
        ready=served is not None,
        outage=outage or None,
        served=None if served is None else asdict(ServedVersions.of(served)),
        load_failure=failure,
        ledger_reachable=watcher.ledger_reachable,
        remembered=watcher.remembered,
        decisions=DecisionLogState(recorded=not unrecorded, failure=unrecorded or None, waiting=context.writer.spooled),
    )


@router.get("/health/ready")
async def ready(request: Request, response: Response, context: Context) -> HealthResponse:
    """As /health, with status 503 until a release is loaded and warm: for load balancers.

    While the models are away it stays ready, since every request is answered in time; `status` is `lean` then.
    """
    state = await health(request, context)
    if not state.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return state


@router.get("/v1/objectives", dependencies=NEEDS_KEY, responses=error_responses(401, 500))
async def objectives(context: Context) -> ServedObjectives:
    """Latency that was served, and what is left of the error budgets."""
    wanted = context.settings.objectives
    return ServedObjectives(
        window_minutes=wanted.window_minutes,
        p95_objective_ms=wanted.p95_ms,
        p99_objective_ms=wanted.p99_ms,
        **context.telemetry.latency.summary().to_dict(),
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: Context) -> Response:
    """Prometheus metrics."""
    text = await asyncio.to_thread(context.telemetry.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
