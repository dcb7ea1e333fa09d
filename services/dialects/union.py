"""POST /v1/rerank: what Cohere v1, Jina, Voyage and vLLM ask and read, in one message.

A request of Voyage without `top_k` reads as one of Cohere, so the results come under both names, `results` and `data`,
but where `top_n` says that it is not Voyage's. A document comes back as an object with its text, which Jina and vLLM
send unless told otherwise and the others do not mind.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from models.serving.document_reading import DocumentReading
from models.serving.protocol import Ranked
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
    score_of,
    texts_without_rank_fields,
)
from services.errors import error_responses
from services.ranking import Ranker, RankerOfRequest, RankingRequest
from services.schemas import Question, RerankMeta, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)


class UnionRequest(BaseModel):
    """A rerank request of Cohere v1, Jina, Voyage or vLLM. Fields that are not listed are ignored and named in
    `meta.warnings`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=texts_without_rank_fields("documents"))

    model: Model = None
    query: Question = Field(description="The search query.")
    documents: list[Document] = Field(
        min_length=1, description="Texts, or objects with `text` or the `rank_fields`; at most serving.max_documents."
    )
    top_n: int | None = Field(default=None, ge=0, description="Results returned; all when left out, and for 0.")
    top_k: int | None = Field(default=None, ge=1, description="The same, by Voyage's name.")
    return_documents: bool | None = Field(default=None, description="False leaves the documents out of the answer.")
    rank_fields: RankFields | None = Field(
        default=None,
        description="Fields that are ranked of documents that are objects; each needs one of them, a string.",
    )
    max_tokens_per_doc: int | None = Field(
        default=None, ge=1, description="Tokens read of each document, from its beginning."
    )
    truncation: bool | None = Field(
        default=None, description="False refuses a document that is longer than the model reads."
    )
    use_activation: bool | None = Field(default=None, description="False gives raw scores instead of probabilities.")
    priority: int | None = Field(default=None, description="Accepted; requests run in order of their deadlines.")
    timeout_ms: TimeBudget = None


class UnionDocument(BaseModel):
    """A returned document: the text that was ranked."""

    text: str


class UnionResult(BaseModel):
    """One ranked document; `index` is its position in the request."""

    index: int
    relevance_score: float
    document: UnionDocument | None = None


class UnionResponse(BaseModel):
    """Best first, under both names unless `top_n` was given. `id` is missing where the decision could not be
    recorded."""

    id: str | None = None
    object: Literal["list"] = "list"
    model: str
    results: list[UnionResult]
    data: list[UnionResult] | None = None
    usage: Usage
    meta: RerankMeta


@router.post("/v1/rerank", response_model_exclude_none=True, responses=error_responses(*FAILURES))
async def rerank(body: UnionRequest, ranker: RankerOfRequest) -> UnionResponse:
    """Rank documents for clients of Cohere v1, Jina, Voyage and vLLM, best first, within the time budget."""
    return await rerank_union(body, ranker)


async def rerank_union(body: UnionRequest, ranker: Ranker) -> UnionResponse:
    """Rank what the request asks."""
    texts = document_texts(body.documents, body.rank_fields)
    answer = await ranker.rank(
        RankingRequest(
            query=body.query,
            documents=texts,
            model=body.model,
            timeout_ms=body.timeout_ms,
            reading=DocumentReading(tokens=body.max_tokens_per_doc, truncate=body.truncation is not False),
        )
    )
    shown = first(answer.items, body.top_k if body.top_n is None else body.top_n)
    warnings = answer.warnings(body.model_extra)
    if body.priority:
        warnings.append("priority is not applied: requests run in order of their deadlines")
    results = [_result(item, texts, body) for item in shown]
    return UnionResponse(
        id=answer.decision_id,
        model=answer.model,
        results=results,
        data=results if body.top_n is None else None,
        usage=Usage.of(answer.ranking.tokens),
        meta=meta(answer, shown, warnings, "1"),
    )


def _result(item: Ranked, texts: list[str], body: UnionRequest) -> UnionResult:
    return UnionResult(
        index=item.index,
        relevance_score=score_of(item, raw=body.use_activation is False),
        document=None if body.return_documents is False else UnionDocument(text=texts[item.index]),
    )
