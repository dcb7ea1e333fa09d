"""A bundle that does what a test tells it to, for what no healthy bundle does: fail, block, or return nonsense.

The tests of answers and scores use real bundles; this one stands in where the subject is what surrounds a bundle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.contracts.rows import Candidate, Passage
from models.records.ledger import Release
from models.retrieval.passage_filter import PassageFilter
from models.serving.batching import Claim
from models.serving.protocol import Ranked, Ranking
from models.settings import Settings

PASSAGE = Passage("p1", "d1", "Loom", "Oil the loom every week.", 0, 24, "handbook")


def in_given_order(count: int) -> Ranking:
    """A valid ranking of `count` texts."""
    return Ranking([Ranked(index, None, 1 / (2 + index), 0.0, "lean", 0.0, 0.0) for index in range(count)])


@dataclass
class ScriptedBundle:
    """Implements `models.serving.protocol.ServedBundle`."""

    release_id: str
    bundle_version: str
    model_version: str = "1"
    index_version: str = "i"
    corpus_version: str = "c"
    rank: Callable[[int], Ranking] = in_given_order
    cost_ms: float = 0.0
    outage: str = ""
    closed: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def retrieve(self, query: str, top_k: int, passage_filter: PassageFilter) -> list[Candidate]:
        return [Candidate(0, "p1", "d1", 1, 1.0, 0.5, 1.0, "hybrid")]

    def rank_candidates(
        self, query: str, candidates: Sequence[Candidate], budget_ms: float, claim: Claim | None = None
    ) -> Ranking:
        return in_given_order(len(candidates))

    def rank_documents(
        self, query: str, documents: Sequence[str], budget_ms: float, claim: Claim | None = None
    ) -> Ranking:
        assert not self.closed.is_set(), "a closed bundle was asked"
        if budget_ms <= 0:
            return in_given_order(len(documents))
        self.asked.append(query)
        return self.rank(len(documents))

    def keep_order(self, documents: Sequence[str]) -> Ranking:
        return in_given_order(len(documents))

    def candidates_ms(self, query: str, count: int) -> float:
        return self.cost_ms

    def documents_ms(self, query: str, documents: Sequence[str]) -> float:
        return self.cost_ms

    def passage(self, candidate: Candidate) -> Passage:
        return PASSAGE

    def close(self) -> None:
        self.closed.set()


class Loader:
    """Loads scripted bundles; `broken` names bundle versions with the error that loading them raises."""

    def __init__(self) -> None:
        self.broken: dict[str, Exception] = {}
        self.loaded: list[ScriptedBundle] = []

    def __call__(self, settings: Settings, release: Release) -> ScriptedBundle:
        if release.bundle_version in self.broken:
            raise self.broken[release.bundle_version]
        bundle = ScriptedBundle(release.release_id, release.bundle_version, release.model_version)
        self.loaded.append(bundle)
        return bundle
