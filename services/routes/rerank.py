"""POST /v2/rerank: Cohere's interface over the released reranker.

`model` is `champion`, the registered model's name (storage.model_name) or the version that serves, pinned. Clients that
send a Cohere default such as `rerank-v3.5` (LlamaIndex and Haystack do unless told otherwise) get a 404 that lists what
is allowed: an answer under the name of another model would be a lie that no evaluation could find.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from models.serving.batching import Claim
from models.serving.protocol import Ranked, Ranking, ServedBundle, ServedVersions, ranking_fault
from services.auth import NEEDS_KEY
from services.context import Context, ServiceContext, caller_left, check_query
from services.deadline import Deadline
from services.decision_record import decide, document_candidates, publish
from services.errors import InvalidRequest, RankingFault, UnknownModel, error_responses
from services.lanes import Bypass
from services.schemas import (
    BilledUnits,
    RerankDocument,
    RerankMeta,
    RerankRequest,
    RerankResponse,
    RerankResult,
    TimeoutMs,
    TokenCounts,
)
from services.served_release import Work

ALIAS = "champion"
_DOCUMENTS_PER_UNIT = 100
_MAX_NAMED = 10

router = APIRouter(dependencies=NEEDS_KEY)


@dataclass(frozen=True, slots=True)
class RankedDocuments:
    """A checked ranking with the versions that made it."""

    ranking: Ranking
    versions: ServedVersions
    stage_ms: Mapping[str, float]


@router.post(
    "/v2/rerank", response_model_exclude_none=True, responses=error_responses(400, 401, 404, 408, 413, 422, 500, 503)
)
async def rerank(
    body: RerankRequest,
    request: Request,
    response: Response,
    context: Context,
    x_timeout_ms: Annotated[TimeoutMs | None, Header()] = None,
) -> RerankResponse:
    """Rank the given documents for the query, best first, within the time budget."""
    budget_ms = body.timeout_ms or x_timeout_ms or context.settings.tiers.budget_ms
    deadline = Deadline(budget_ms, request.scope["arrived"])
    check_query(body.query, context)
    _check_size(body, context)
    served = context.watcher.served
    if served is not None:
        _check_model(body.model, context, served.model_version)

    def full(bundle: ServedBundle, claim: Claim) -> RankedDocuments:
        # Again, since a swap may lie between: a pinned version never gets another one's scores.
        _check_model(body.model, context, bundle.versions.model_version)
        return rank_documents(bundle, body.query, body.documents, deadline, claim)

    def fallback(bundle: ServedBundle, bypass: Bypass, hurry: bool) -> RankedDocuments:
        _check_model(body.model, context, bundle.versions.model_version)
        return rank_without_models(bundle, body.query, body.documents, deadline, bypass, hurry)

    work = Work(lambda bundle: bundle.documents_ms(body.query, body.documents), full, fallback)
    ranked = await context.watcher.run(work, deadline, caller_left(request))
    decision = decide(
        request,
        endpoint="/v2/rerank",
        query=body.query,
        candidates=document_candidates(body.documents),
        ranking=ranked.ranking,
        versions=ranked.versions,
        stage_ms={**ranked.stage_ms, "total": deadline.elapsed_ms},
    )
    decision_id = await publish(request, response, context, ranked.ranking, decision)
    shown = ranked.ranking.items[: body.top_n]
    return RerankResponse(
        id=decision_id,
        results=[_result(item, body) for item in shown],
        meta=RerankMeta(
            billed_units=BilledUnits(search_units=math.ceil(len(body.documents) / _DOCUMENTS_PER_UNIT)),
            tokens=TokenCounts(input_tokens=ranked.ranking.tokens),
            warnings=_warnings(body, ranked.ranking, decision_id) or None,
            decision_id=decision_id,
            release_id=decision.release_id,
            model_version=decision.model_version,
            degraded=decision.degraded,
            degraded_reason=decision.degraded_reason,
            tiers=[item.tier for item in shown],
            tier_counts=ranked.ranking.tier_counts,
            truncated=ranked.ranking.truncated,
            stage_ms={stage: round(milliseconds, 2) for stage, milliseconds in decision.stage_ms.items()},
        ),
    )


def rank_documents(
    bundle: ServedBundle, query: str, documents: Sequence[str], deadline: Deadline, claim: Claim
) -> RankedDocuments:
    """Rank with the models in the time that is left.

    Raises `RankingFault` for a ranking that does not match the documents.
    """
    queued = deadline.elapsed_ms
    ranking = bundle.rank_documents(query, documents, deadline.remaining_ms, claim)
    if fault := ranking_fault(ranking, len(documents)):
        raise RankingFault(f"The engine failed: {fault}")
    return RankedDocuments(ranking, bundle.versions, {"queue": queued, **ranking.stage_ms})


def rank_without_models(
    bundle: ServedBundle, query: str, documents: Sequence[str], deadline: Deadline, bypass: Bypass, hurry: bool
) -> RankedDocuments:
    """Rank by BM25, or keep the caller's order when in a hurry."""
    queued = deadline.elapsed_ms
    ranking = bundle.keep_order(documents) if hurry else bundle.rank_documents(query, documents, 0.0)
    if fault := ranking_fault(ranking, len(documents)):
        raise RankingFault(f"The engine failed: {fault}")
    degraded = Ranking(ranking.items, degraded=True, degraded_reason=bypass.degraded_reason)
    return RankedDocuments(degraded, bundle.versions, {"queue": queued, "lean": deadline.elapsed_ms - queued})


def _check_size(body: RerankRequest, context: ServiceContext) -> None:
    limit = context.settings.serving.max_documents
    if len(body.documents) > limit:
        hint = "Split the request, or raise serving.max_documents"
        raise InvalidRequest(f"documents: {len(body.documents)} are more than {limit}", hint, param="documents")


def _check_model(name: str, context: ServiceContext, version: str) -> None:
    allowed = [ALIAS, context.settings.storage.model_name, version]
    if name not in allowed:
        hint = f"Allowed: {', '.join(allowed)}. A client that sends a default of its own needs model={ALIAS!r}"
        raise UnknownModel("model: the service does not serve a model of this name", hint, param="model")


def _result(item: Ranked, body: RerankRequest) -> RerankResult:
    document = RerankDocument(text=body.documents[item.index]) if body.return_documents else None
    return RerankResult(index=item.index, relevance_score=float(item.score), document=document)


def _warnings(body: RerankRequest, ranking: Ranking, decision_id: str | None) -> list[str]:
    warnings = []
    if decision_id is None:
        warnings.append("the decision could not be recorded, so it has no id")
    if ranking.degraded:
        warnings.append(f"degraded: {ranking.degraded_reason or 'some scores are from a lesser tier'}")
    if ranking.truncated:
        warnings.append(f"{ranking.truncated} documents were cut to the model's length")
    if body.max_tokens_per_doc is not None:
        warnings.append("max_tokens_per_doc is not applied: documents are cut to the model's length")
    if body.priority:
        warnings.append("priority is not applied: requests run in order of their deadlines")
    if body.model_extra:
        names = sorted(body.model_extra)[:_MAX_NAMED]
        warnings.append(f"ignored fields: {', '.join(name[:40] for name in names)}")
    return warnings
