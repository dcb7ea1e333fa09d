"""POST /v1/answer: retrieve, rank, answer with citations; GET /v1/decisions/{decision_id}: why.

A streamed answer has the passages first, since they are ranked before it is written. What a language model writes is
sent when it is checked, not before: no reader sees a sentence taken back.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from models.contracts.messages import Decision, GeneratedAnswer, GenerateRequest
from models.contracts.rows import Candidate, Passage
from models.serving.answer import ScoreSentences
from models.serving.batching import Claim
from models.serving.generator import generate_extractive, given_passages, passages_only
from models.serving.protocol import Ranked, Ranking, ServedBundle, ServedVersions, candidates_of, ranking_fault
from models.settings import Settings
from services.auth import NEEDS_KEY
from services.context import Context, ServiceContext, caller_left, check_query
from services.deadline import Deadline
from services.decision_record import decide, passage_candidates, publish, stored_decision
from services.errors import CallerLeft, RankingFault, error_response, error_responses
from services.lanes import Bypass
from services.log_lines import error_facts
from services.schemas import (
    DECISION_ID,
    MIN_TIMEOUT_MS,
    AnswerPassage,
    AnswerRequest,
    AnswerResponse,
    DeltaEvent,
    PassagesEvent,
    TimeoutHeader,
    Versions,
)
from services.served_release import Work
from services.writing import write

_PASSAGES = 10
_SENTENCE_SHARE = 0.25
"""Share of the budget that scoring sentences may take, at most."""
_EVENTS = "text/event-stream"
_LOG = logging.getLogger(__name__)

router = APIRouter(dependencies=NEEDS_KEY)


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything that one bundle found for a question."""

    candidates: Sequence[Candidate]
    ranking: Ranking
    passages: Sequence[tuple[Passage, Ranked]]
    asked: GenerateRequest
    answer: GeneratedAnswer
    """The extractive one."""

    versions: ServedVersions
    stage_ms: dict[str, float]


@router.post(
    "/v1/answer",
    response_model=AnswerResponse,
    responses={
        200: {
            "description": "The answer, or with `stream` its events: `passages` (PassagesEvent), `delta` (DeltaEvent),"
            " then `done` (AnswerResponse) or `error` (ErrorResponse).",
            "content": {_EVENTS: {"schema": {"type": "string"}}},
        },
        **error_responses(400, 401, 408, 413, 422, 500, 503),
    },
)
async def answer(
    body: AnswerRequest,
    request: Request,
    response: Response,
    context: Context,
    x_timeout_ms: TimeoutHeader = None,
) -> AnswerResponse | StreamingResponse:
    """Answer a question from the released corpus in its own words, with the place of every quote."""
    settings = context.settings
    default_ms = settings.tiers.budget_ms if context.chat is None else settings.generator.budget_ms
    deadline = Deadline(body.timeout_ms or x_timeout_ms or default_ms, request.scope["arrived"])
    check_query(body.query, context)
    # What a language model has for writing is no time to queue in for the rerankers.
    ranked_by = deadline
    if context.chat is not None:
        ranked_by = Deadline(min(deadline.budget_ms, settings.tiers.budget_ms), request.scope["arrived"])
    question = _Question(body, settings, ranked_by)
    work = Work(question.cost_ms, question.answer, question.answer_without_models, may_drop=True)
    answered = await context.watcher.run(work, ranked_by, caller_left(request))
    if not body.stream and _EVENTS not in request.headers.get("accept", ""):
        return await _written(body, request, response, context, answered, deadline)
    return StreamingResponse(
        _events(body, request, context, answered, deadline),
        media_type=_EVENTS,
        headers={"Cache-Control": "no-store", "X-Release-Id": answered.versions.release_id},
    )


async def _written(
    body: AnswerRequest,
    request: Request,
    response: Response,
    context: ServiceContext,
    answered: Answered,
    deadline: Deadline,
) -> AnswerResponse:
    """Write the answer, record the decision, and say what was done."""
    written_from = deadline.elapsed_ms
    written = await write(
        context.chat,
        answered.asked,
        answered.answer,
        deadline,
        context.settings.tiers.reserve_ms,
        caller_left(request),
    )
    stage_ms = dict(answered.stage_ms)
    if context.chat is not None:
        stage_ms["generate"] = deadline.elapsed_ms - written_from
    decision = decide(
        request,
        endpoint="/v1/answer",
        query=body.query,
        candidates=passage_candidates(answered.candidates),
        ranking=answered.ranking,
        versions=answered.versions,
        stage_ms={**stage_ms, "total": deadline.elapsed_ms},
        answer=written,
    )
    decision_id = await publish(request, response, context, answered.ranking, decision)
    return AnswerResponse(
        decision_id=decision_id,
        answer=written.answer,
        citations=written.citations,
        generation=written.generation,
        passages=_shown(body, answered),
        degraded=decision.degraded,
        degraded_reason=decision.degraded_reason,
        versions=Versions(**asdict(answered.versions)),
        stage_ms={stage: round(milliseconds, 2) for stage, milliseconds in decision.stage_ms.items()},
    )


async def _events(
    body: AnswerRequest, request: Request, context: ServiceContext, answered: Answered, deadline: Deadline
) -> AsyncIterator[str]:
    """The events of a streamed answer. What fails behind the passages is an event too: the status has left."""
    yield _event("passages", PassagesEvent(passages=_shown(body, answered)).model_dump_json())
    try:
        whole = await _written(body, request, Response(), context, answered, deadline)
    except CallerLeft:
        return
    except Exception as error:
        trace_id = request.scope["trace_id"]
        _LOG.error("streamed answer failed", extra={"facts": {"trace_id": trace_id, **error_facts(error)}})
        yield _event("error", bytes(error_response(error, trace_id).body).decode())
        return
    for part in parts_of(whole.answer, len(whole.citations)):
        yield _event("delta", DeltaEvent(text=part).model_dump_json())
    yield _event("done", whole.model_dump_json())


def parts_of(answer: str, citations: int) -> list[str]:
    """An answer cut behind each of its marks `[n]`; together they are the whole of it."""
    parts: list[str] = []
    start = 0
    for number in range(1, citations + 1):
        mark = f"[{number}]"
        end = answer.find(mark, start)
        if end >= 0:
            parts.append(answer[start : end + len(mark)])
            start = end + len(mark)
    return [part for part in (*parts, answer[start:]) if part]


def _event(name: str, data: str) -> str:
    """One server-sent event; JSON has no line break."""
    return f"event: {name}\ndata: {data}\n\n"


def _shown(body: AnswerRequest, answered: Answered) -> list[AnswerPassage]:
    return [
        AnswerPassage(
            passage_id=passage.passage_id,
            document_id=passage.document_id,
            title=passage.title,
            text=passage.text,
            score=float(item.score),
            tier=item.tier,
            rank=rank,
        )
        for rank, (passage, item) in enumerate(answered.passages[: body.max_passages or _PASSAGES], 1)
    ]


@router.get("/v1/decisions/{decision_id}", responses=error_responses(401, 404, 422, 500, 503))
def decision(decision_id: Annotated[str, Path(pattern=DECISION_ID)], context: Context) -> Decision:
    """The stored record of an answered request: query, candidates, every score and tier, versions, latencies."""
    return stored_decision(context, decision_id)


class _Question:
    """One question and what was retrieved for it, which an answer without the models takes over from one with them that
    was not in time."""

    def __init__(self, body: AnswerRequest, settings: Settings, deadline: Deadline) -> None:
        self._body = body
        self._settings = settings
        self._deadline = deadline
        self._shown = max(body.max_passages or _PASSAGES, settings.generator.passages)
        self._stage_ms: dict[str, float] = {}
        self._retrieved: list[Candidate] | None = None

    def cost_ms(self, bundle: ServedBundle) -> float:
        """Predicted time of ranking, and of the sentences, which hold the tokens of the best passages once more."""
        ranking = bundle.candidates_ms(self._body.query, self._top_k(bundle))
        return ranking + bundle.candidates_ms(self._body.query, self._settings.generator.passages)

    def answer(self, bundle: ServedBundle, claim: Claim) -> Answered:
        """Retrieve, rank and answer. Raises `RankingFault` for a ranking that does not match."""
        candidates = self._retrieve(bundle)
        ranking = self._rank(bundle, candidates, self._deadline.remaining_ms, claim)
        score = None if ranking.degraded else _sentence_scorer(bundle, self._settings, self._deadline, claim)
        return self._answered(bundle, candidates, ranking, score)

    def answer_without_models(self, bundle: ServedBundle, bypass: Bypass, hurry: bool) -> Answered:
        """Retrieve and answer in the order of the first stage; in a hurry with the passages alone, unless it is the
        caller who gave no time."""
        candidates = self._retrieve(bundle)
        lean = self._rank(bundle, candidates, 0.0, None)
        ranking = Ranking(lean.items, degraded=True, degraded_reason=bypass.degraded_reason)
        return self._answered(bundle, candidates, ranking, None, passages_alone=hurry and bypass.reason != "budget")

    def _top_k(self, bundle: ServedBundle) -> int:
        return self._body.top_k or candidates_of(bundle, self._settings.serving)

    def _retrieve(self, bundle: ServedBundle) -> list[Candidate]:
        if self._retrieved is None:
            queued = self._deadline.elapsed_ms
            retrieved = bundle.retrieve(self._body.query, self._top_k(bundle), self._body.passage_filter)
            self._stage_ms = {"queue": queued, "retrieve": self._deadline.elapsed_ms - queued}
            self._retrieved = retrieved
        return self._retrieved

    def _rank(
        self, bundle: ServedBundle, candidates: list[Candidate], budget_ms: float, claim: Claim | None
    ) -> Ranking:
        ranking = bundle.rank_candidates(self._body.query, candidates, budget_ms, claim)
        if fault := ranking_fault(ranking, len(candidates)):
            raise RankingFault(f"The engine failed: {fault}")
        return ranking

    def _answered(
        self,
        bundle: ServedBundle,
        candidates: list[Candidate],
        ranking: Ranking,
        score: ScoreSentences | None,
        passages_alone: bool = False,
    ) -> Answered:
        ranked_at = self._deadline.elapsed_ms
        passages = [(bundle.passage(candidates[item.index]), item) for item in ranking.items[: self._shown]]
        settings = self._settings.generator
        asked = GenerateRequest(
            query=self._body.query,
            passages=given_passages([(passage, item.score) for passage, item in passages[: settings.passages]]),
            min_score=_min_score(bundle, ranking),
            timeout_ms=max(self._deadline.remaining_ms, MIN_TIMEOUT_MS),
        )
        if passages_alone:
            answer = passages_only(ranking.degraded_reason)
        else:
            answer = generate_extractive(asked, settings, score)
        stage_ms = {**self._stage_ms, **ranking.stage_ms, "answer": self._deadline.elapsed_ms - ranked_at}
        return Answered(candidates, ranking, passages, asked, answer, bundle.versions, stage_ms)


def _min_score(bundle: ServedBundle, ranking: Ranking) -> float | None:
    """The threshold of the tier that scored the best passage."""
    tier = ranking.items[0].scored_by if ranking.items else None
    return None if tier is None else bundle.min_answer_score(tier)


def _sentence_scorer(
    bundle: ServedBundle, settings: Settings, deadline: Deadline, claim: Claim | None
) -> ScoreSentences | None:
    """The reranker as judge of sentences, where time is left for it."""
    budget_ms = min(deadline.remaining_ms, _SENTENCE_SHARE * deadline.budget_ms)
    if budget_ms <= settings.tiers.reserve_ms:
        return None

    def score(query: str, sentences: Sequence[str]) -> list[float]:
        ranking = bundle.rank_documents(query, sentences, budget_ms, claim)
        if fault := ranking_fault(ranking, len(sentences)):
            raise RankingFault(f"The engine failed: {fault}")
        return [item.score for item in sorted(ranking.items, key=lambda item: item.index)]

    return score
