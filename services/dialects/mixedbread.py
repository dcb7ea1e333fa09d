"""POST /v1/reranking: Mixedbread's interface."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from services.auth import NEEDS_KEY
from services.dialects.parts import (
    FAILURES,
    Document,
    Model,
    RankFields,
    Usage,
    document_texts,
    first,
    meta,
    texts_without_rank_fields,
)
from services.errors import error_responses
from services.ranking import RankerOfRequest, RankingRequest
from services.schemas import Question, RerankMeta, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)


class RerankingRequest(BaseModel):
    """A rerank request of Mixedbread. Fields that are not listed are ignored and named in `meta.warnings`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=texts_without_rank_fields("input"))

    model: Model = None
    query: Question = Field(description="The search query.")
    input: list[Document] = Field(
        min_length=1, description="Texts, or objects with `text` or the `rank_fields`; at most serving.max_documents."
    )
    top_k: int | None = Field(default=None, ge=1, description="Results returned; all when left out.")
    return_input: bool = Field(default=False, description="Return the text of each input.")
    rank_fields: RankFields | None = Field(
        default=None,
        description="Fields that are ranked of inputs that are objects; each needs one of them, a string.",
    )
    timeout_ms: TimeBudget = None


class RerankingResult(BaseModel):
    """One ranked input; `index` is its position in the request."""

    object: Literal["rank_result"] = "rank_result"
    index: int
    score: float
    input: str | None = None


class RerankingResponse(BaseModel):
    """Best first. `id` is missing where the decision could not be recorded."""

    id: str | None = None
    object: Literal["list"] = "list"
    model: str
    data: list[RerankingResult]
    usage: Usage
    top_k: int
    return_input: bool
    meta: RerankMeta


@router.post("/v1/reranking", response_model_exclude_none=True, responses=error_responses(*FAILURES))
async def rerank(body: RerankingRequest, ranker: RankerOfRequest) -> RerankingResponse:
    """Rank inputs for clients of Mixedbread, best first, within the time budget."""
    texts = document_texts(body.input, body.rank_fields, "input")
    answer = await ranker.rank(RankingRequest(body.query, texts, body.model, body.timeout_ms, documents_field="input"))
    shown = first(answer.items, body.top_k)
    return RerankingResponse(
        id=answer.decision_id,
        model=answer.model,
        data=[
            RerankingResult(
                index=item.index, score=float(item.score), input=texts[item.index] if body.return_input else None
            )
            for item in shown
        ],
        usage=Usage.of(answer.ranking.tokens),
        top_k=len(shown),
        return_input=body.return_input,
        meta=meta(answer, shown, answer.warnings(body.model_extra), "1"),
    )
