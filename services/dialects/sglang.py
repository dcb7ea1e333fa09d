"""POST /sglang/v1/rerank: SGLang's bare array, for clients whose base is `<service>/sglang`.

Its requests cannot be told from those of /v1/rerank.
"""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from services.auth import NEEDS_KEY
from services.dialects.parts import FAILURES, Model, first
from services.error_bodies import FlatErrorResponse
from services.errors import error_responses
from services.ranking import RankerOfRequest, RankingRequest
from services.schemas import Question, Text, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)


class SglangRequest(BaseModel):
    """A rerank request of SGLang; other fields are ignored, as they are there."""

    model_config = ConfigDict(extra="ignore")

    model: Model = None
    query: Question = Field(description="The search query.")
    documents: list[Text] = Field(min_length=1, description="Texts to rank, at most serving.max_documents.")
    top_n: int | None = Field(default=None, ge=1, description="Results returned; all when left out.")
    return_documents: bool = Field(default=True, description="Return each document.")
    timeout_ms: TimeBudget = None


class SglangResult(BaseModel):
    """One ranked document; `index` is its position in the request."""

    score: float
    document: str | None = None
    index: int


@router.post(
    "/sglang/v1/rerank",
    response_model_exclude_none=True,
    responses=error_responses(*FAILURES, body=FlatErrorResponse),
)
async def rerank(body: SglangRequest, ranker: RankerOfRequest) -> list[SglangResult]:
    """Rank documents for clients of SGLang, best first, within the time budget."""
    answer = await ranker.rank(RankingRequest(body.query, body.documents, body.model, body.timeout_ms))
    return [
        SglangResult(
            score=float(item.score),
            document=body.documents[item.index] if body.return_documents else None,
            index=item.index,
        )
        for item in first(answer.items, body.top_n)
    ]
