"""What a served release offers to the services: the protocol of the engine and the plain data that crosses it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from models.contracts.tiers import TIER_NAMES, Tier
from models.serving.document_reading import READ_ALL, DocumentReading
from models.settings import AUTO, ServingSettings, chosen

if TYPE_CHECKING:
    from models.contracts.rows import Candidate, Passage
    from models.records.ledger import Release
    from models.retrieval.passage_filter import PassageFilter
    from models.serving.batching import Claim


@dataclass(frozen=True, slots=True)
class ServedVersions:
    """What answers a request: the release and its MLflow version, both empty outside a release; the versions of the
    bundle, of its pair of indexes and of its passages."""

    release_id: str
    bundle_version: str
    model_version: str
    index_version: str
    corpus_version: str

    @classmethod
    def of(cls, release: Release) -> ServedVersions:
        """Those that the ledger names."""
        return cls(**{version.name: getattr(release, version.name) for version in fields(cls)})


@dataclass(frozen=True, slots=True)
class Ranked:
    """One scored text.

    `index` is its position in the request (or in the candidate set), `score` the calibrated probability of relevance,
    `logit` the raw score of the tier that decided. Where that tier's model was not run, since its score was known,
    `tier` is `cached` and `scored_by` is the tier that once gave it; elsewhere `scored_by` is `tier`.
    """

    index: int
    passage_id: str | None
    score: float
    logit: float
    tier: Tier
    dense_score: float
    lexical_score: float
    scored_by: Tier | None = None

    def __post_init__(self) -> None:
        if self.scored_by is None:
            object.__setattr__(self, "scored_by", self.tier)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Every text of one request, best first.

    `truncated` counts texts cut to the model's length; `tokens` those that the models read.
    """

    items: Sequence[Ranked]
    degraded: bool = False
    degraded_reason: str = ""
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    truncated: int = 0
    tokens: int = 0

    @property
    def tier_counts(self) -> dict[str, int]:
        """How many texts each tier decided."""
        return dict(Counter(item.tier for item in self.items))


def candidates_of(bundle: ServedBundle, settings: ServingSettings) -> int:
    """Passages that a query retrieves: `serving.candidates`, where that is `auto` as many as in the evaluation."""
    return bundle.candidates if settings.candidates == AUTO else chosen(settings.candidates)


def ranking_fault(ranking: Ranking, count: int) -> str:
    """What is wrong with a ranking of `count` texts, empty when nothing is.

    A client that zips scores with its documents is silently misaligned by a dropped or repeated index, so nothing
    leaves the service unchecked.
    """
    if sorted(item.index for item in ranking.items) != list(range(count)):
        return f"the ranking does not hold each of the {count} texts once"
    scores = [item.score for item in ranking.items]
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in scores):
        return "a score is not a number from 0 to 1"
    if not all(math.isfinite(item.logit) for item in ranking.items):
        return "a raw score is not a number"
    if any(after > before for before, after in pairwise(scores)):
        return "the ranking is not sorted by score"
    if any(item.tier not in TIER_NAMES for item in ranking.items):
        return "a tier is unknown"
    return ""


class ServedBundle(Protocol):
    """A loaded release: the models, the index and the passages it was evaluated with.

    A budget of 0 ms or less asks for the lean tier alone, which no model computes. Any number of threads may call a
    bundle; `claim` is told what is done and may be withdrawn. `outage` says why the models cannot be asked now, empty
    when they can; what asks them meanwhile raises `ScorerLost`, and the lean tier goes on.
    """

    @property
    def versions(self) -> ServedVersions: ...
    @property
    def candidates(self) -> int: ...  # passages of a query that it was evaluated with
    @property
    def max_tokens(self) -> int: ...  # that a cross-encoder reads of query and text together
    @property
    def outage(self) -> str: ...

    def retrieve(self, query: str, top_k: int, passage_filter: PassageFilter) -> list[Candidate]:
        """First stage: at most `top_k` passages that pass the filter, best first."""
        ...

    def rank_candidates(
        self, query: str, candidates: Sequence[Candidate], budget_ms: float, claim: Claim | None = None
    ) -> Ranking:
        """Rank retrieved passages; `Ranked.index` is the position in `candidates`."""
        ...

    def rank_documents(
        self,
        query: str,
        documents: Sequence[str],
        budget_ms: float,
        claim: Claim | None = None,
        reading: DocumentReading = READ_ALL,
    ) -> Ranking:
        """Rank the caller's own texts; `Ranked.index` is the position in `documents`. Raises `TextTooLong` where
        `reading` forbids to cut one."""
        ...

    def keep_order(self, documents: Sequence[str]) -> Ranking:
        """The caller's own texts in the order given, all with the score of a text of which nothing is known."""
        ...

    def candidates_ms(self, query: str, count: int) -> float:
        """Predicted milliseconds of the models for `rank_candidates` of this many passages, without a limit."""
        ...

    def documents_ms(self, query: str, documents: Sequence[str], reading: DocumentReading = READ_ALL) -> float:
        """Predicted milliseconds of the models for `rank_documents`, without a limit; cheap for any texts."""
        ...

    def min_answer_score(self, tier: Tier) -> float | None:
        """Score by a tier of the best passage below which none answers a question; None where the release has none."""
        ...

    def passage(self, candidate: Candidate) -> Passage:
        """The passage that a candidate of `retrieve` is."""
        ...

    def close(self) -> None:
        """Free the models and the index; no call follows."""
        ...
