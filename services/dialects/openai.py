"""GET /v1/models: the names under which the released model is served, in OpenAI's form."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from services.auth import NEEDS_KEY
from services.context import Context
from services.errors import NothingServed, error_responses
from services.ranking import served_names

router = APIRouter(dependencies=NEEDS_KEY)


class ModelEntry(BaseModel):
    """One name; `root` is the pinned version behind it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["rerankops"] = "rerankops"
    root: str


class ModelsResponse(BaseModel):
    """Every name that a rerank request may give as `model`."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


@router.get("/v1/models", responses=error_responses(401, 500, 503))
async def models(context: Context) -> ModelsResponse:
    """The names of the model that serves now."""
    served = context.watcher.served
    if served is None:
        raise NothingServed("No release is loaded", "Materialize the release assets first")
    created = int(served.created_at.timestamp())
    names = served_names(context, served.model_version)
    return ModelsResponse(data=[ModelEntry(id=name, created=created, root=served.model_version) for name in names])
