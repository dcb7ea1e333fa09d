"""The one use case behind every rerank interface: rank a caller's documents for a query inside its time budget, record
the decision, and say what was done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response

from models.contracts.messages import Decision
from models.serving.batching import Claim
from models.serving.document_reading import READ_ALL, DocumentReading, TextTooLong
from models.serving.protocol import Ranked, Ranking, ServedBundle, ServedVersions, ranking_fault
from services.context import Context, ServiceContext, caller_left, check_query
from services.deadline import Deadline
from services.decision_record import decide, document_candidates, publish
from services.errors import InvalidRequest, RankingFault, UnknownModel
from services.lanes import Bypass
from services.schemas import TimeoutHeader
from services.served_release import Work

ALIAS = "champion"
"""The name of whatever serves."""
_MAX_NAMED = 10
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """What a dialect has understood.

    Attributes:
        query: What the documents are ranked for.
        documents: Texts, at most `serving.max_documents`.
        model: The name that the caller gave; None is `ALIAS`.
        timeout_ms: Time budget of the body, before that of the header.
        reading: How much of the documents is read.
        documents_field: Name of the documents in the dialect, for errors.
    """

    query: str
    documents: Sequence[str]
    model: str | None = None
    timeout_ms: float | None = None
    reading: DocumentReading = READ_ALL
    documents_field: str = "documents"


@dataclass(frozen=True, slots=True)
class RankedDocuments:
    """A checked ranking with the versions that made it."""

    ranking: Ranking
    versions: ServedVersions
    stage_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RankingAnswer:
    """A ranking that was decided on and recorded.

    Attributes:
        model: The name under which it was asked for.
        ranking: The whole ranking.
        decision: Its record; `decision_id` is None where it could not be written.
        created: Seconds since 1970.
    """

    model: str
    ranking: Ranking
    decision: Decision
    decision_id: str | None
    created: int

    @property
    def items(self) -> Sequence[Ranked]:
        """Every document, best first."""
        return self.ranking.items

    def warnings(self, ignored: Mapping[str, Any] | None = None) -> list[str]:
        """What a caller should know; `ignored` are the fields of the request that no interface of its kind has."""
        warnings = []
        if self.decision_id is None:
            warnings.append("the decision could not be recorded, so it has no id")
        if self.ranking.degraded:
            warnings.append(f"degraded: {self.ranking.degraded_reason or 'some scores are from a lesser tier'}")
        if self.ranking.truncated:
            warnings.append(f"{self.ranking.truncated} documents were cut to the model's length")
        if ignored:
            names = sorted(ignored)[:_MAX_NAMED]
            warnings.append(f"ignored fields: {', '.join(name[:_SHOWN_CHARACTERS] for name in names)}")
        return warnings


class Ranker:
    """Ranks for one HTTP request; a dialect asks it once, or for each of several queries."""

    def __init__(self, request: Request, response: Response, context: ServiceContext, header_ms: float | None) -> None:
        self._request = request
        self._response = response
        self._context = context
        self._header_ms = header_ms

    async def rank(self, asked: RankingRequest) -> RankingAnswer:
        """Rank, record and count. Raises `InvalidRequest`, `UnknownModel` and what a release may raise."""
        context, request = self._context, self._request
        budget_ms = asked.timeout_ms or self._header_ms or context.settings.tiers.budget_ms
        deadline = Deadline(budget_ms, request.scope["arrived"])
        self.check(asked)

        def full(bundle: ServedBundle, claim: Claim) -> RankedDocuments:
            # Again, since a swap may lie between: a pinned version never gets another one's scores.
            check_model(asked.model, context, bundle.versions.model_version)
            return _with_models(bundle, asked, deadline, claim)

        def fallback(bundle: ServedBundle, bypass: Bypass, hurry: bool) -> RankedDocuments:
            check_model(asked.model, context, bundle.versions.model_version)
            return _without_models(bundle, asked, deadline, bypass, hurry)

        work = Work(lambda bundle: bundle.documents_ms(asked.query, asked.documents, asked.reading), full, fallback)
        ranked = await context.watcher.run(work, deadline, caller_left(request))
        decision = decide(
            request,
            endpoint=request.scope["route"].path,
            query=asked.query,
            candidates=document_candidates(asked.documents),
            ranking=ranked.ranking,
            versions=ranked.versions,
            stage_ms={**ranked.stage_ms, "total": deadline.elapsed_ms},
        )
        decision_id = await publish(request, self._response, context, ranked.ranking, decision)
        return RankingAnswer(asked.model or ALIAS, ranked.ranking, decision, decision_id, int(time.time()))

    def check(self, asked: RankingRequest) -> None:
        """Refuse what no release would answer, before anything reads it."""
        check_query(asked.query, self._context)
        self.check_count(len(asked.documents), asked.documents_field)
        served = self._context.watcher.served
        if served is not None:
            check_model(asked.model, self._context, served.model_version)

    def check_count(self, count: int, field: str) -> None:
        """Raise `InvalidRequest` for more documents than one request may carry."""
        limit = self._context.settings.serving.max_documents
        if count > limit:
            hint = "Split the request, or raise serving.max_documents"
            raise InvalidRequest(f"{field}: {count} are more than {limit}", hint, param=field)


async def _ranker(
    request: Request,
    response: Response,
    context: Context,
    x_timeout_ms: TimeoutHeader = None,
) -> Ranker:
    # A plain function or class would wait for a thread of the pool that reads the database.
    return Ranker(request, response, context, x_timeout_ms)


RankerOfRequest = Annotated[Ranker, Depends(_ranker)]
"""The ranker as a route's parameter."""


def served_names(context: ServiceContext, version: str) -> list[str]:
    """Names under which `version` is served: alias, registered model, pinned version, and `serving.model_aliases`."""
    own = [ALIAS, context.settings.storage.model_name, version]
    return own + [name for name, meant in context.settings.serving.model_aliases.items() if meant in own]


def check_model(name: str | None, context: ServiceContext, version: str) -> None:
    """Raise `UnknownModel` for a name that is not one of `version`.

    An answer under the name of another model would be a lie that no evaluation could find, so a client's default such
    as `rerank-v3.5` is served only where `serving.model_aliases` says so.
    """
    names = served_names(context, version)
    if name is not None and name not in names:
        hint = (
            f"Allowed: {', '.join(names)}. A client that sends a default of its own needs model={ALIAS!r}, or an entry"
            " in serving.model_aliases"
        )
        raise UnknownModel("model: the service does not serve a model of this name", hint, param="model")


def _with_models(bundle: ServedBundle, asked: RankingRequest, deadline: Deadline, claim: Claim) -> RankedDocuments:
    """Rank with the models in the time that is left.

    Raises `RankingFault` for a ranking that does not match the documents.
    """
    queued = deadline.elapsed_ms
    try:
        ranking = bundle.rank_documents(asked.query, asked.documents, deadline.remaining_ms, claim, asked.reading)
    except TextTooLong as error:
        field = f"{asked.documents_field}.{error.index}"
        raise InvalidRequest(f"{field}: {error.message}", error.hint, param=field) from error
    _check_ranking(ranking, asked)
    return RankedDocuments(ranking, bundle.versions, {"queue": queued, **ranking.stage_ms})


def _without_models(
    bundle: ServedBundle, asked: RankingRequest, deadline: Deadline, bypass: Bypass, hurry: bool
) -> RankedDocuments:
    """Rank by BM25, or keep the caller's order when in a hurry."""
    queued, documents = deadline.elapsed_ms, asked.documents
    if hurry:
        ranking = bundle.keep_order(documents)
    else:
        ranking = bundle.rank_documents(asked.query, documents, 0.0, None, asked.reading)
    _check_ranking(ranking, asked)
    degraded = Ranking(ranking.items, degraded=True, degraded_reason=bypass.degraded_reason)
    return RankedDocuments(degraded, bundle.versions, {"queue": queued, "lean": deadline.elapsed_ms - queued})


def _check_ranking(ranking: Ranking, asked: RankingRequest) -> None:
    if fault := ranking_fault(ranking, len(asked.documents)):
        raise RankingFault(f"The engine failed: {fault}")
