"""What the messages of several dialects have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.serving.protocol import Ranked
from services.errors import InvalidRequest
from services.ranking import RankingAnswer
from services.schemas import ApiVersion, BilledUnits, RerankMeta, TokenCounts

_DOCUMENTS_PER_UNIT = 100
FAILURES = (400, 401, 404, 408, 413, 422, 500, 503)
"""Statuses of every rerank route but 200."""

Model = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="`champion`, the registered model's name, the served version, pinned, or a name of"
        " serving.model_aliases; `champion` when left out.",
    ),
]


def _check_document(value: object) -> object:
    texts = [value] if isinstance(value, str) else value.values() if isinstance(value, Mapping) else None
    if texts is None:
        raise PydanticCustomError("document", "Input should be a string, or an object with a text")
    for text in texts:
        _check_characters(text)
    return value


def _check_characters(text: object) -> object:
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "string_unicode", "Input should be a valid string, without lone surrogates"
            ) from error
    return text


Document = Annotated[
    str | dict[str, Any],
    PlainValidator(_check_document),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]
"""A text, or an object that has one."""
Name = Annotated[str, AfterValidator(_check_characters)]
RankFields = Annotated[list[Annotated[Name, Field(max_length=200)]], Field(min_length=1, max_length=100)]
"""Names of the fields that are ranked of documents that are objects."""


def texts_without_rank_fields(field: str) -> dict[str, Any]:
    """What the JSON Schema of a body adds to `Document`: without `rank_fields`, each object of `field` has a `text`.
    That with them each has one of those is beyond JSON Schema, so the description says it."""
    with_text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    by_text = {
        "properties": {
            "rank_fields": {"type": "null"},
            field: {"items": {"anyOf": [{"type": "string"}, with_text]}},
        }
    }
    return {"anyOf": [by_text, {"properties": {"rank_fields": {"type": "array"}}, "required": ["rank_fields"]}]}


class Usage(BaseModel):
    """Tokens that the models read; scores that were known cost none."""

    prompt_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, tokens: int) -> Usage:
        """These many; nothing is written."""
        return cls(prompt_tokens=tokens, total_tokens=tokens)


def document_texts(documents: Sequence[Any], rank_fields: Sequence[str] | None, field: str = "documents") -> list[str]:
    """The text of each document: of an object its `text`, or the `rank_fields`, each with its name in front.

    Raises `InvalidRequest` for an object without any.
    """
    texts = []
    for index, document in enumerate(documents):
        text = document if isinstance(document, str) else _text_of(document, rank_fields)
        if text is None:
            place = f"{field}.{index}"
            hint = f"It needs one of {', '.join(rank_fields)}, a string" if rank_fields else "It needs `text`, a string"
            raise InvalidRequest(f"{place}: the object has no text to rank", hint, param=place)
        texts.append(text)
    return texts


def _text_of(document: Mapping[str, Any], rank_fields: Sequence[str] | None) -> str | None:
    given = {name: document[name] for name in rank_fields or ["text"] if isinstance(document.get(name), str)}
    if len(given) == 1:
        return next(iter(given.values()))
    return "\n".join(f"{name}: {text}" for name, text in given.items()) or None


def meta(
    answer: RankingAnswer, shown: Sequence[Ranked], warnings: Sequence[str], api_version: str, billed: int | None = None
) -> RerankMeta:
    """Who decided what, in Cohere's `meta`; `shown` are the returned results."""
    decision, ranking = answer.decision, answer.ranking
    return RerankMeta(
        api_version=ApiVersion(version=api_version),
        billed_units=BilledUnits(search_units=math.ceil((billed or len(ranking.items)) / _DOCUMENTS_PER_UNIT)),
        tokens=TokenCounts(input_tokens=ranking.tokens),
        warnings=list(warnings) or None,
        decision_id=answer.decision_id,
        release_id=decision.release_id,
        model_version=decision.model_version,
        degraded=decision.degraded,
        degraded_reason=decision.degraded_reason,
        tiers=[item.tier for item in shown],
        tier_counts=ranking.tier_counts,
        truncated=ranking.truncated,
        stage_ms={stage: round(milliseconds, 2) for stage, milliseconds in decision.stage_ms.items()},
    )


def first(items: Sequence[Ranked], count: int | None) -> Sequence[Ranked]:
    """The best `count`; all for None and, as vLLM has it, 0."""
    return items[: count or None]


def score_of(item: Ranked, raw: bool) -> float:
    """The probability, or where `raw` the logit that it is the sigmoid of."""
    return float(item.logit if raw else item.score)
