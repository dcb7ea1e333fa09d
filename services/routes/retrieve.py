"""POST /v1/retrieve: the first stage alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Request, Response

from models.contracts.messages import CONTRACT_VERSION
from models.contracts.rows import Candidate, Passage
from models.serving.batching import Claim
from models.serving.protocol import ServedBundle, ServedVersions, candidates_of
from services.auth import NEEDS_KEY
from services.context import Context, caller_left, check_query
from services.deadline import Deadline
from services.errors import error_responses
from services.lanes import Bypass
from services.schemas import RetrievedPassage, RetrieveRequest, RetrieveResponse, TimeoutHeader, Versions
from services.served_release import Work

router = APIRouter(dependencies=NEEDS_KEY)


@dataclass(frozen=True, slots=True)
class _Retrieved:
    candidates: Sequence[Candidate]
    passages: Sequence[Passage]
    versions: ServedVersions


@router.post("/v1/retrieve", responses=error_responses(400, 401, 408, 413, 422, 500, 503))
async def retrieve(
    body: RetrieveRequest,
    request: Request,
    response: Response,
    context: Context,
    x_timeout_ms: TimeoutHeader = None,
) -> RetrieveResponse:
    """Passages of the released corpus for a question, in the order of the first stage; no model ranks them."""
    settings = context.settings
    deadline = Deadline(body.timeout_ms or x_timeout_ms or settings.tiers.budget_ms, request.scope["arrived"])
    check_query(body.query, context)

    def found(bundle: ServedBundle) -> _Retrieved:
        top_k = body.top_k or candidates_of(bundle, settings.serving)
        candidates = bundle.retrieve(body.query, top_k, body.passage_filter)
        return _Retrieved(candidates, [bundle.passage(candidate) for candidate in candidates], bundle.versions)

    def full(bundle: ServedBundle, claim: Claim) -> _Retrieved:
        return found(bundle)

    def fallback(bundle: ServedBundle, bypass: Bypass, hurry: bool) -> _Retrieved:
        return found(bundle)

    # It asks nothing of the models, so that one lane is as good as the other.
    work = Work(lambda bundle: 0.0, full, fallback, may_drop=True)
    retrieved = await context.watcher.run(work, deadline, caller_left(request))
    request.scope["state"]["release_id"] = response.headers["X-Release-Id"] = retrieved.versions.release_id
    return RetrieveResponse(
        passages=[
            RetrievedPassage(
                passage_id=candidate.passage_id,
                document_id=candidate.document_id,
                title=passage.title,
                text=passage.text,
                rank=candidate.rank,
                retriever_score=float(candidate.retriever_score),
                dense_score=float(candidate.dense_score),
                lexical_score=float(candidate.lexical_score),
                retriever=candidate.retriever,
            )
            for candidate, passage in zip(retrieved.candidates, retrieved.passages, strict=True)
        ],
        versions=Versions(**asdict(retrieved.versions)),
        contract_version=CONTRACT_VERSION,
        milliseconds=round(deadline.elapsed_ms, 2),
    )
