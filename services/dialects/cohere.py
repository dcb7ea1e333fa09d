"""POST /v2/rerank: Cohere's v2, with our facts added inside `meta`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from models.serving.document_reading import DocumentReading
from services.auth import NEEDS_KEY
from services.dialects.parts import FAILURES, meta
from services.errors import error_responses
from services.ranking import RankerOfRequest, RankingRequest
from services.schemas import Question, RerankMeta, Text, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)


class RerankRequest(BaseModel):
    """Cohere's v2 rerank request. Fields that are not listed are ignored and named in `meta.warnings`."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(
        min_length=1,
        max_length=200,
        description="`champion`, the registered model's name, the served version, pinned, or a name of"
        " serving.model_aliases.",
    )
    query: Question = Field(description="The search query.")
    documents: list[Text] = Field(min_length=1, description="Texts to rank, at most serving.max_documents.")
    top_n: int | None = Field(default=None, ge=1, description="Results returned; all when left out.")
    max_tokens_per_doc: int | None = Field(
        default=None, ge=1, description="Tokens read of each document, from its beginning."
    )
    priority: int | None = Field(
        default=None, ge=0, le=999, description="Accepted; requests run in order of their deadlines."
    )
    return_documents: bool | None = Field(default=None, description="Return each result's text as document.text.")
    timeout_ms: TimeBudget = None


class RerankDocument(BaseModel):
    """A returned document."""

    text: str


class RerankResult(BaseModel):
    """One ranked document; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankResponse(BaseModel):
    """Best first. `id` is missing where the decision could not be recorded."""

    id: str | None = None
    results: list[RerankResult]
    meta: RerankMeta


@router.post("/v2/rerank", response_model_exclude_none=True, responses=error_responses(*FAILURES))
async def rerank(body: RerankRequest, ranker: RankerOfRequest) -> RerankResponse:
    """Rank the given documents for the query, best first, within the time budget."""
    answer = await ranker.rank(
        RankingRequest(
            query=body.query,
            documents=body.documents,
            model=body.model,
            timeout_ms=body.timeout_ms,
            reading=DocumentReading(tokens=body.max_tokens_per_doc),
        )
    )
    shown = answer.items[: body.top_n]
    warnings = answer.warnings(body.model_extra)
    if body.priority:
        warnings.append("priority is not applied: requests run in order of their deadlines")
    return RerankResponse(
        id=answer.decision_id,
        results=[
            RerankResult(
                index=item.index,
                relevance_score=float(item.score),
                document=RerankDocument(text=body.documents[item.index]) if body.return_documents else None,
            )
            for item in shown
        ],
        meta=meta(answer, shown, warnings, "2"),
    )
