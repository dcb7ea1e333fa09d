"""POST /infinity/rerank: infinity's interface, whose documents come back as strings, for clients whose base is
`<service>/infinity`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from services.auth import NEEDS_KEY
from services.dialects.parts import FAILURES, Model, Usage, first, score_of
from services.error_bodies import StatusErrorResponse
from services.errors import error_responses
from services.ranking import RankerOfRequest, RankingRequest
from services.schemas import Question, Text, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)
_UNSPECIFIED = "default/not-specified"
"""What infinity's client sends where its user names no model."""


class InfinityRequest(BaseModel):
    """A rerank request of infinity; other fields are ignored, as they are there."""

    model_config = ConfigDict(extra="ignore")

    model: Model = _UNSPECIFIED
    query: Question = Field(description="The search query.")
    documents: list[Text] = Field(min_length=1, description="Texts to rank, at most serving.max_documents.")
    return_documents: bool = Field(default=False, description="Return each document.")
    raw_scores: bool = Field(default=False, description="Raw scores instead of probabilities.")
    top_n: int | None = Field(default=None, ge=1, description="Results returned; all when left out.")
    timeout_ms: TimeBudget = None


class InfinityResult(BaseModel):
    """One ranked document; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: str | None = None


class InfinityResponse(BaseModel):
    """Best first. `id` is missing where the decision could not be recorded."""

    object: Literal["rerank"] = "rerank"
    id: str | None = None
    model: str
    created: int
    usage: Usage
    results: list[InfinityResult]


@router.post(
    "/infinity/rerank",
    response_model_exclude_none=True,
    responses=error_responses(*FAILURES, body=StatusErrorResponse),
)
async def rerank(body: InfinityRequest, ranker: RankerOfRequest) -> InfinityResponse:
    """Rank documents for clients of infinity, best first, within the time budget."""
    model = None if body.model == _UNSPECIFIED else body.model
    answer = await ranker.rank(RankingRequest(body.query, body.documents, model, body.timeout_ms))
    return InfinityResponse(
        id=answer.decision_id,
        model=answer.model,
        created=answer.created,
        usage=Usage.of(answer.ranking.tokens),
        results=[
            InfinityResult(
                index=item.index,
                relevance_score=score_of(item, body.raw_scores),
                document=body.documents[item.index] if body.return_documents else None,
            )
            for item in first(answer.items, body.top_n)
        ],
    )
