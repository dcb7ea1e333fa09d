"""POST /rerank: for a body of `texts` what text-embeddings-inference answers, for one of `documents` what /v1/rerank
does; GET /info: the served model and every limit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from models.serving.document_reading import DocumentReading
from services import error_bodies
from services.auth import NEEDS_KEY
from services.context import Context
from services.dialects.parts import FAILURES, Model, first, score_of, texts_without_rank_fields
from services.dialects.union import UnionRequest, UnionResponse, rerank_union
from services.dialects.vllm import MAX_QUERIES
from services.errors import BODY_TAGS, EmptyInput, NothingServed, error_responses
from services.ranking import Ranker, RankerOfRequest, RankingRequest
from services.schemas import MAX_TIMEOUT_MS, Question, Text, TimeBudget
from services.version import service_version

router = APIRouter(dependencies=NEEDS_KEY)
_TEXTS, _DOCUMENTS = BODY_TAGS


class TeiRequest(BaseModel):
    """A rerank request of text-embeddings-inference; other fields are ignored, as they are there."""

    model_config = ConfigDict(extra="ignore")

    query: Question = Field(description="The search query.")
    texts: list[Text] = Field(
        description="Texts to rank, at most serving.max_documents.", json_schema_extra={"minItems": 1}
    )
    raw_scores: bool = Field(default=False, description="Raw scores instead of probabilities.")
    return_text: bool = Field(default=False, description="Return each text.")
    truncate: bool | None = Field(default=None, description="False refuses a text that is longer than the model reads.")
    truncation_direction: Literal["Right", "right"] | None = Field(
        default=None, description="Right: a text is read from its beginning."
    )
    model: Model = None
    top_n: int | None = Field(default=None, ge=0, description="Results returned; all when left out, and for 0.")
    timeout_ms: TimeBudget = None


class DocumentsRequest(UnionRequest):
    """A request of /v1/rerank, which a body with `texts` is not."""

    model_config = ConfigDict(
        json_schema_extra={**texts_without_rank_fields("documents"), "not": {"required": ["texts"]}}
    )


class TeiRank(BaseModel):
    """One ranked text; `index` is its position in the request."""

    index: int
    score: float
    text: str | None = None


class RerankerType(BaseModel):
    """The labels of a reranker with one score."""

    id2label: dict[str, str] = {"0": "LABEL_0"}
    label2id: dict[str, int] = {"LABEL_0": 0}


class ModelType(BaseModel):
    """That the model is a reranker."""

    reranker: RerankerType = RerankerType()


class Limits(BaseModel):
    """What a request may hold and last; what is above is refused. `max_queries` is for /score. `document_characters` is
    what is read of a document, null where it follows from `max_input_length`."""

    max_documents: int
    max_request_bytes: int
    max_held_bytes: int
    max_query_characters: int
    max_queries: int = MAX_QUERIES
    document_characters: int | None
    request_timeout_s: float
    default_timeout_ms: float
    max_timeout_ms: float = MAX_TIMEOUT_MS


class InfoResponse(BaseModel):
    """As text-embeddings-inference tells it, and our `limits`. There is no number of requests above which one is
    refused: what the models cannot answer in time is answered without them."""

    model_id: str
    model_sha: str
    model_type: ModelType = ModelType()
    max_concurrent_requests: int | None = None
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = True
    tokenization_workers: int
    version: str
    release_id: str
    limits: Limits


def _form(body: Any) -> str:
    return _TEXTS if isinstance(body, TeiRequest) or (isinstance(body, dict) and "texts" in body) else _DOCUMENTS


EitherRequest = Annotated[
    Annotated[TeiRequest, Tag(_TEXTS)] | Annotated[DocumentsRequest, Tag(_DOCUMENTS)], Discriminator(_form)
]


@router.post(
    "/rerank",
    response_model_exclude_none=True,
    responses=error_responses(*FAILURES, body=error_bodies.ErrorResponse | error_bodies.TeiErrorResponse),
)
async def rerank(
    body: Annotated[EitherRequest, Body()], request: Request, ranker: RankerOfRequest
) -> list[TeiRank] | UnionResponse:
    """Rank `texts` as text-embeddings-inference does, or `documents` as /v1/rerank does."""
    if isinstance(body, DocumentsRequest):
        return await rerank_union(body, ranker)
    request.scope["state"]["error_body"] = error_bodies.tei
    return await _rerank_texts(body, ranker)


async def _rerank_texts(body: TeiRequest, ranker: Ranker) -> list[TeiRank]:
    if not body.texts:
        raise EmptyInput("texts: there are none", param="texts")
    answer = await ranker.rank(
        RankingRequest(
            query=body.query,
            documents=body.texts,
            model=body.model,
            timeout_ms=body.timeout_ms,
            reading=DocumentReading(truncate=body.truncate is not False),
            documents_field="texts",
        )
    )
    return [
        TeiRank(
            index=item.index,
            score=score_of(item, body.raw_scores),
            text=body.texts[item.index] if body.return_text else None,
        )
        for item in first(answer.items, body.top_n)
    ]


@router.get("/info", responses=error_responses(401, 500, 503, body=error_bodies.TeiErrorResponse))
async def info(context: Context) -> InfoResponse:
    """The model that serves now, and every limit of a request."""
    settings, served = context.settings, context.watcher.served
    if served is None:
        raise NothingServed("No release is loaded", "Materialize the release assets first")
    serving = settings.serving
    return InfoResponse(
        model_id=f"{settings.storage.model_name}/{served.model_version}",
        model_sha=served.bundle_version,
        max_input_length=context.watcher.max_tokens,
        max_batch_tokens=serving.batch_tokens,
        max_client_batch_size=serving.max_documents,
        tokenization_workers=serving.workers,
        version=service_version(),
        release_id=served.release_id,
        limits=Limits(
            max_documents=serving.max_documents,
            max_request_bytes=serving.max_request_bytes,
            max_held_bytes=max(serving.max_held_bytes, serving.max_request_bytes),
            max_query_characters=serving.max_query_characters,
            document_characters=None if serving.document_characters == "auto" else serving.document_characters,
            request_timeout_s=serving.request_timeout_s,
            default_timeout_ms=settings.tiers.budget_ms,
        ),
    )
