"""POST /v1/release/refresh: serve the ledger's current release now. It takes nothing from the request."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from services.auth import NEEDS_KEY
from services.context import Context
from services.errors import NothingServed, error_responses
from services.schemas import RefreshResponse

router = APIRouter(dependencies=NEEDS_KEY)


@router.post("/v1/release/refresh", responses=error_responses(401, 500, 503))
async def refresh(context: Context) -> RefreshResponse:
    """Load, warm and swap in the current release; answers when it serves. One that serves already is left alone."""
    swap = await asyncio.to_thread(context.watcher.refresh)
    if swap is None:
        raise NothingServed("The ledger has no current release", "Materialize the release assets first")
    return RefreshResponse(
        release_id=swap.release.release_id,
        bundle_version=swap.release.bundle_version,
        model_version=swap.release.model_version,
        swapped=swap.swapped,
        seconds=round(swap.seconds, 3),
        warm_up_ms=dict(swap.warm_up_ms),
    )
