"""POST /v1/answer: retrieve, rank, answer with citations; GET /v1/decisions/{decision_id}: why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from models.contracts.messages import Decision
from models.contracts.rows import Candidate, Passage
from models.records import decisions
from models.serving.answer import Answer, extractive_answer
from models.serving.batching import Claim
from models.serving.protocol import Ranked, Ranking, ServedBundle, ServedVersions, candidates_of, ranking_fault
from models.settings import Settings
from services.context import Context, caller_left, check_query
from services.deadline import Deadline
from services.decision_record import DECISION_ID, decide, passage_candidates, publish
from services.errors import RankingFault, UnknownDecision
from services.lanes import Bypass
from services.schemas import AnswerPassage, AnswerRequest, AnswerResponse, TimeoutMs, Versions
from services.served_release import Work

_PASSAGES = 10
_SENTENCE_SHARE = 0.25
"""Share of the budget that scoring sentences may take, at most."""
_WRITE_S = 2.0

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything that one bundle found for a question."""

    candidates: Sequence[Candidate]
    ranking: Ranking
    passages: Sequence[tuple[Passage, Ranked]]
    answer: Answer
    versions: ServedVersions
    stage_ms: dict[str, float]


@router.post("/v1/answer")
async def answer(
    body: AnswerRequest,
    request: Request,
    response: Response,
    context: Context,
    x_timeout_ms: Annotated[TimeoutMs | None, Header()] = None,
) -> AnswerResponse:
    """Answer a question from the released corpus in its own words, with the place of every quote."""
    settings = context.settings
    budget_ms = body.timeout_ms or x_timeout_ms or settings.tiers.budget_ms
    deadline = Deadline(budget_ms, request.scope["arrived"])
    check_query(body.query, context)
    work = Work(
        lambda bundle: _cost_ms(bundle, body, settings),
        lambda bundle, claim: find_answer(bundle, body, settings, deadline, claim),
        lambda bundle, bypass, _: find_answer(bundle, body, settings, deadline, bypass=bypass),
    )
    answered = await context.watcher.run(work, deadline, caller_left(request))
    decision = decide(
        request,
        endpoint="/v1/answer",
        query=body.query,
        candidates=passage_candidates(answered.candidates),
        ranking=answered.ranking,
        versions=answered.versions,
        stage_ms={**answered.stage_ms, "total": deadline.elapsed_ms},
        answer=answered.answer.text,
        citations=answered.answer.citations,
    )
    decision_id = await publish(request, response, context, answered.ranking, decision)
    return AnswerResponse(
        decision_id=decision_id,
        answer=answered.answer.text,
        citations=answered.answer.citations,
        passages=[
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
        ],
        degraded=decision.degraded,
        degraded_reason=decision.degraded_reason,
        versions=Versions(**asdict(answered.versions)),
        stage_ms={stage: round(milliseconds, 2) for stage, milliseconds in decision.stage_ms.items()},
    )


@router.get("/v1/decisions/{decision_id}")
def decision(decision_id: Annotated[str, Path(pattern=DECISION_ID)], context: Context) -> Decision:
    """The stored record of an answered request: query, candidates, every score and tier, versions, latencies."""
    # A caller may ask for the decision that it was just given.
    context.writer.flush(_WRITE_S)
    stored = decisions.get(context.database, decision_id)
    if stored is None:
        hint = "It is unknown, or still waits for the database: rerankops_decisions_spooled in /metrics"
        raise UnknownDecision("No decision with this id is stored", hint, param="decision_id")
    return stored


def find_answer(
    bundle: ServedBundle,
    body: AnswerRequest,
    settings: Settings,
    deadline: Deadline,
    claim: Claim | None = None,
    bypass: Bypass | None = None,
) -> Answered:
    """Retrieve, rank and answer; `bypass` says why no model takes part, where none does.

    Raises `RankingFault` for a ranking that does not match.
    """
    stage_ms = {"queue": deadline.elapsed_ms}
    candidates = bundle.retrieve(body.query, _top_k(bundle, body, settings), body.passage_filter)
    stage_ms["retrieve"] = deadline.elapsed_ms - stage_ms["queue"]
    ranking = bundle.rank_candidates(body.query, candidates, 0.0 if bypass else deadline.remaining_ms, claim)
    if fault := ranking_fault(ranking, len(candidates)):
        raise RankingFault(f"The engine failed: {fault}")
    if bypass:
        ranking = Ranking(ranking.items, degraded=True, degraded_reason=bypass.degraded_reason)
    stage_ms |= ranking.stage_ms
    ranked_at = deadline.elapsed_ms
    shown = max(body.max_passages or _PASSAGES, settings.generator.passages)
    passages = [(bundle.passage(candidates[item.index]), item) for item in ranking.items[:shown]]
    text = extractive_answer(
        body.query,
        [(passage, item.score) for passage, item in passages],
        settings.generator,
        None if ranking.degraded else _sentence_scorer(bundle, settings, deadline, claim),
    )
    stage_ms["answer"] = deadline.elapsed_ms - ranked_at
    return Answered(candidates, ranking, passages, text, bundle.versions, stage_ms)


def _top_k(bundle: ServedBundle, body: AnswerRequest, settings: Settings) -> int:
    return body.top_k or candidates_of(bundle, settings.serving)


def _cost_ms(bundle: ServedBundle, body: AnswerRequest, settings: Settings) -> float:
    """Predicted time of ranking, and of the sentences, which hold the tokens of the best passages once more."""
    ranking = bundle.candidates_ms(body.query, _top_k(bundle, body, settings))
    return ranking + bundle.candidates_ms(body.query, settings.generator.passages)


def _sentence_scorer(
    bundle: ServedBundle, settings: Settings, deadline: Deadline, claim: Claim | None
) -> Callable[[str, Sequence[str]], Sequence[float]] | None:
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
