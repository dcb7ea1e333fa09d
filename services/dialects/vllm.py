"""POST /score and /v1/score: vLLM's scores of pairs of texts, in the order of the request.

Callers use the scores themselves, so every pair is scored by the last model, whatever the others of its query are.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from models.serving.document_reading import DocumentReading
from services.auth import NEEDS_KEY
from services.dialects.parts import FAILURES, Model, Usage, score_of
from services.error_bodies import StatusErrorResponse
from services.errors import InvalidRequest, Overloaded, error_responses
from services.ranking import Ranker, RankerOfRequest, RankingAnswer, RankingRequest
from services.schemas import Question, Text, TimeBudget

router = APIRouter(dependencies=NEEDS_KEY)
MAX_QUERIES = 32
"""Different queries of one request: each is ranked for itself."""
_ATTEMPTS = 3
_NAMES = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _one_or_more(of: Any) -> WithJsonSchema:
    one = TypeAdapter(of).json_schema()
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})


def _pair_of_names(pair: tuple[str, str]) -> dict[str, Any]:
    """The JSON Schema of a body with these two names and none of the others."""
    others = {name: {"type": "null"} for one in _NAMES for name in one if name not in pair}
    return {"required": list(pair), "properties": {name: {"type": ["string", "array"]} for name in pair} | others}


Questions = Annotated[list[Question], BeforeValidator(_listed), Field(min_length=1), _one_or_more(Question)]
Texts = Annotated[list[Text], BeforeValidator(_listed), Field(min_length=1), _one_or_more(Text)]


class ScoreRequest(BaseModel):
    """A score request of vLLM: one query with texts, or as many queries as texts, under one of four pairs of names.
    Other fields are ignored."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"oneOf": [_pair_of_names(pair) for pair in _NAMES]})

    model: Model = None
    text_1: Questions | None = Field(default=None, description="Queries, with text_2.")
    text_2: Texts | None = Field(default=None, description="Texts, with text_1.")
    queries: Questions | None = Field(default=None, description="Queries, with documents or items.")
    documents: Texts | None = Field(default=None, description="Texts, with queries.")
    items: Texts | None = Field(default=None, description="Texts, with queries.")
    data_1: Questions | None = Field(default=None, description="Queries, with data_2.")
    data_2: Texts | None = Field(default=None, description="Texts, with data_1.")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Tokens read of a pair; what the model reads when left out, and for -1."
    )
    use_activation: bool | None = Field(default=None, description="False gives raw scores instead of probabilities.")
    timeout_ms: TimeBudget = None

    @model_validator(mode="after")
    def _check_names(self) -> ScoreRequest:
        given = {name for pair in _NAMES for name in pair if getattr(self, name) is not None}
        if given not in map(set, _NAMES):
            raise PydanticCustomError(
                "names",
                "Input should have text_1 and text_2, queries and documents, queries and items, or data_1 and data_2",
            )
        return self

    @property
    def names(self) -> tuple[str, str]:
        """The fields of the queries and of the texts."""
        return next(pair for pair in _NAMES if all(getattr(self, name) is not None for name in pair))

    def pairs(self) -> list[tuple[str, str]]:
        """Query and text of each. Raises `InvalidRequest` where their numbers do not fit."""
        of_queries, of_texts = self.names
        queries, texts = getattr(self, of_queries), getattr(self, of_texts)
        if len(queries) not in (1, len(texts)):
            hint = "Send one query, or one for each text"
            raise InvalidRequest(f"{of_queries}: {len(queries)} for {len(texts)} {of_texts}", hint, param=of_queries)
        return list(zip(queries * len(texts) if len(queries) == 1 else queries, texts, strict=True))


class ScoreResult(BaseModel):
    """The score of one pair; `index` is its position in the request."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreMeta(BaseModel):
    """Who decided what: a decision for each query."""

    decision_ids: list[str | None]
    release_id: str
    model_version: str
    degraded: bool
    degraded_reason: str
    warnings: list[str] | None = None


class ScoreResponse(BaseModel):
    """In the order of the request. `id` is the first decision's, and missing where it could not be recorded."""

    id: str | None = None
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ScoreResult]
    usage: Usage
    meta: ScoreMeta


@router.post("/score", response_model_exclude_none=True, responses=error_responses(*FAILURES, body=StatusErrorResponse))
@router.post(
    "/v1/score", response_model_exclude_none=True, responses=error_responses(*FAILURES, body=StatusErrorResponse)
)
async def score(body: ScoreRequest, ranker: RankerOfRequest) -> ScoreResponse:
    """Score pairs of texts for clients of vLLM within the time budget."""
    pairs = body.pairs()
    of_queries, of_texts = body.names
    rows: dict[str, list[int]] = {}
    for row, (query, _) in enumerate(pairs):
        rows.setdefault(query, []).append(row)
    ranker.check_count(len(pairs), of_texts)
    if len(rows) > MAX_QUERIES:
        message = f"{of_queries}: {len(rows)} different ones are more than {MAX_QUERIES}"
        raise InvalidRequest(message, "Split the request", param=of_queries)
    most = body.truncate_prompt_tokens if body.truncate_prompt_tokens not in (-1, 0) else None
    requests = [
        RankingRequest(
            query=query,
            documents=[pairs[row][1] for row in of_query],
            model=body.model,
            timeout_ms=body.timeout_ms,
            reading=DocumentReading(pair_tokens=most, every_pair=True),
            documents_field=of_texts,
        )
        for query, of_query in rows.items()
    ]
    answers = await _rank_all(ranker, requests)
    scores = {
        of_query[item.index]: score_of(item, raw=body.use_activation is False)
        for of_query, answer in zip(rows.values(), answers, strict=True)
        for item in answer.items
    }
    decision = answers[0].decision
    reasons = [answer.decision.degraded_reason for answer in answers if answer.decision.degraded]
    return ScoreResponse(
        id=answers[0].decision_id,
        created=answers[0].created,
        model=answers[0].model,
        data=[ScoreResult(index=row, score=scores[row]) for row in range(len(pairs))],
        usage=Usage.of(sum(answer.ranking.tokens for answer in answers)),
        meta=ScoreMeta(
            decision_ids=[answer.decision_id for answer in answers],
            release_id=decision.release_id,
            model_version=decision.model_version,
            degraded=bool(reasons),
            degraded_reason=reasons[0] if reasons else "",
            warnings=list(dict.fromkeys(text for answer in answers for text in answer.warnings())) or None,
        ),
    )


async def _rank_all(ranker: Ranker, requests: list[RankingRequest]) -> list[RankingAnswer]:
    """An answer for each query, all of one release: scores of two could not be compared."""
    for request in requests:
        ranker.check(request)
    for _ in range(_ATTEMPTS):
        answers = await asyncio.gather(*map(ranker.rank, requests))
        if len({answer.decision.release_id for answer in answers}) == 1:
            return answers
    raise Overloaded("The release changed while the pairs were scored", "Ask again")
