"""From an answered request to its decision record, and the headers that name it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from fastapi import Request, Response

from models.contracts.messages import PROBE_CALLER, CandidateMessage, Decision, GeneratedAnswer
from models.contracts.rows import Candidate
from models.records import decisions
from models.serving.protocol import Ranking, ServedVersions
from models.text.words import count_words
from services.context import ServiceContext
from services.errors import UnknownDecision
from services.log_lines import error_facts

_LOG = logging.getLogger(__name__)
_NOT_IN_HEADERS = re.compile(r"[^\x20-\x7e]")
_MAX_HEADER = 200
_WRITE_S = 2.0
"""Wait for the database to have what is on the disk, at most."""
_RECORD_S = 5.0
"""Wait for the disk, at most; what is not on it by then has no id."""


def passage_candidates(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Retrieved passages as they are recorded."""
    return [CandidateMessage.of(candidate).model_dump() for candidate in candidates]


def document_candidates(documents: Sequence[str]) -> list[dict[str, Any]]:
    """The caller's texts as they are recorded: by digest and length, since they are not ours to keep."""
    return [
        {"passage_id": document_id(text), "rank": rank, "characters": len(text)}
        for rank, text in enumerate(documents, 1)
    ]


def document_id(text: str) -> str:
    """The id under which a caller's text is recorded: the same text, the same id."""
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cut_query(decision: Decision, characters: int) -> Decision:
    """The decision with the start of a longer query alone, or with a digest where no `characters` are kept."""
    query = decision.query
    if len(query) <= characters:
        return decision
    kept = query[:characters] if characters else document_id(query)
    counts = {"query_characters": len(query), "query_words": count_words(query)}
    return decision.model_copy(update={"query": kept, **counts})


def decide(
    request: Request,
    *,
    endpoint: str,
    query: str,
    candidates: list[dict[str, Any]],
    ranking: Ranking,
    versions: ServedVersions,
    stage_ms: Mapping[str, float],
    answer: GeneratedAnswer | None = None,
) -> Decision:
    """The record of one answered request.

    `candidates` are `passage_candidates` or `document_candidates`.
    """
    return Decision(
        decision_id=uuid4().hex,
        trace_id=request.scope["trace_id"],
        time=datetime.now(UTC),
        endpoint=endpoint,
        caller=request.scope["state"]["caller"],
        query=query,
        candidates=candidates,
        ranking=[
            {
                "passage_id": candidates[item.index]["passage_id"],
                "index": item.index,
                "rank": rank,
                "score": float(item.score),
                "logit": float(item.logit),
                "tier": item.tier,
                "scored_by": item.scored_by,
                "dense_score": float(item.dense_score),
                "lexical_score": float(item.lexical_score),
            }
            for rank, item in enumerate(ranking.items, 1)
        ],
        release_id=versions.release_id,
        model_version=versions.model_version,
        index_version=versions.index_version,
        corpus_version=versions.corpus_version,
        stage_ms={stage: float(milliseconds) for stage, milliseconds in stage_ms.items()},
        degraded=ranking.degraded,
        degraded_reason=ranking.degraded_reason,
        answer=None if answer is None else answer.answer,
        citations=[] if answer is None else answer.citations,
        generation=None if answer is None else answer.generation,
    )


def stored_decision(context: ServiceContext, decision_id: str) -> Decision:
    """The record of an answer, also of one that was given just now. Raises `UnknownDecision`."""
    context.writer.flush(_WRITE_S)
    stored = decisions.get(context.database, decision_id)
    if stored is None:
        hint = "It is unknown, or still waits for the database: rerankops_decisions_spooled in /metrics"
        raise UnknownDecision("No decision with this id is stored", hint, param="decision_id")
    return stored


async def publish(
    request: Request, response: Response, context: ServiceContext, ranking: Ranking, decision: Decision
) -> str | None:
    """Record the decision, count it, and name it in the response's headers; returns its id once it is on disk.

    None where it cannot be recorded: the answer is right all the same, and has no id that would promise a record.
    """
    kept = cut_query(decision, context.settings.monitoring.kept_query_characters)
    recorded = await _is_recorded(context, kept)
    context.telemetry.ranking(decision.endpoint, ranking, decision.stage_ms)
    if decision.generation is not None:
        context.telemetry.generated(decision.generation)
    request.scope["state"] |= {
        "decision_id": decision.decision_id if recorded else None,
        "release_id": decision.release_id,
        "degraded": decision.degraded,
    }
    if decision.caller != PROBE_CALLER:
        # The deployment's own probes do not count against the objectives.
        request.scope["state"]["tier"] = ranking.items[0].tier if ranking.items else "none"
    headers = {"X-Decision-Id": decision.decision_id} if recorded else {}
    headers |= {
        "X-Decision-Recorded": "true" if recorded else "false",
        "X-Release-Id": decision.release_id,
        "X-Model-Version": decision.model_version,
        "X-Degraded": "true" if decision.degraded else "false",
    }
    if decision.generation is not None:
        headers["X-Generator"] = decision.generation.generator
        if decision.generation.fallback_reason:
            headers["X-Generator-Fallback"] = decision.generation.fallback_reason
    if decision.degraded:
        headers["X-Degraded-Reason"] = decision.degraded_reason
    for name, value in headers.items():
        response.headers[name] = _NOT_IN_HEADERS.sub("?", value)[:_MAX_HEADER]
    return decision.decision_id if recorded else None


async def _is_recorded(context: ServiceContext, decision: Decision) -> bool:
    facts: dict[str, Any] = {"decision_id": decision.decision_id}
    try:
        recorded = asyncio.wrap_future(context.writer.put(decision))
        await asyncio.wait({recorded}, timeout=_RECORD_S)
        if recorded.done() and recorded.result():
            return True
        facts["failure"] = context.writer.failure or "the disk did not answer in time"
    except Exception as error:
        facts |= error_facts(error)
    context.telemetry.unrecorded()  # What an alert watches.
    _LOG.error("decision not recorded", extra={"facts": facts})
    return False
