"""A bundle that does what a test tells it to, for what no healthy bundle does: fail, block, or return nonsense.

The tests of answers and scores use real bundles; this one stands in where the subject is what surrounds a bundle.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from models.contracts.rows import Candidate, Passage
from models.contracts.tiers import Tier
from models.records.ledger import Release
from models.retrieval.passage_filter import PassageFilter
from models.serving.batching import Claim
from models.serving.document_reading import READ_ALL, DocumentReading
from models.serving.protocol import Ranked, Ranking, ServedVersions
from models.settings import Settings
from services.deadline import Deadline
from services.lanes import Bypass
from services.release_watcher import ReleaseWatcher
from services.served_release import Work
from tests.patience import PATIENCE_S
from tests.small_bundle import BUDGET_MS

WORKERS, QUEUE_MS, RESERVE_MS = 2, 1000, 3000
"""Settings of the fixture `watcher`."""
T = TypeVar("T")

PASSAGE = Passage("p1", "d1", "Loom", "Oil the loom every week.", 0, 24, "handbook")


def in_given_order(count: int) -> Ranking:
    """A valid ranking of `count` texts."""
    return Ranking([Ranked(index, None, 1 / (2 + index), 0.0, "lean", 0.0, 0.0) for index in range(count)])


@dataclass
class ScriptedBundle:
    """Implements `models.serving.protocol.ServedBundle`."""

    versions: ServedVersions
    rank: Callable[[int], Ranking] = in_given_order
    cost_ms: float = 0.0
    candidates: int = 8
    max_tokens: int = 128
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
        self,
        query: str,
        documents: Sequence[str],
        budget_ms: float,
        claim: Claim | None = None,
        reading: DocumentReading = READ_ALL,
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

    def documents_ms(self, query: str, documents: Sequence[str], reading: DocumentReading = READ_ALL) -> float:
        return self.cost_ms

    def min_answer_score(self, tier: Tier) -> float | None:
        return None

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
        bundle = ScriptedBundle(ServedVersions.of(release))
        self.loaded.append(bundle)
        return bundle


def work_of(job: Callable[[Any], T], cost_ms: float = 0.0) -> Work[T | Bypass]:
    """A request whose answer is what `job` returns, or why it bypassed the models."""
    return Work(lambda bundle: cost_ms, lambda bundle, claim: job(bundle), lambda bundle, bypass, hurry: bypass)


def ask(watcher: ReleaseWatcher, query: str = "q") -> str | Bypass:
    """Which bundle version ranks a text."""

    def job(bundle: Any) -> str:
        bundle.rank_documents(query, ["a"], 1.0)
        return bundle.versions.bundle_version

    return asyncio.run(watcher.run(work_of(job), Deadline(BUDGET_MS)))


def blocked(watcher: ReleaseWatcher, count: int, rest: Callable[[threading.Event], Awaitable[T]]) -> T:
    """Run `rest` while `count` requests hold every thread of the models; it sets the event, or this does at the end."""
    inside, go_on = threading.Semaphore(0), threading.Event()

    def block(bundle: Any) -> str:
        inside.release()
        assert go_on.wait(PATIENCE_S)
        return bundle.versions.bundle_version

    async def go() -> T:
        waiting = [asyncio.ensure_future(watcher.run(work_of(block, 10.0), Deadline(BUDGET_MS))) for _ in range(count)]
        for _ in range(count):
            while not inside.acquire(blocking=False):
                await asyncio.sleep(0.001)
        try:
            return await rest(go_on)
        finally:
            go_on.set()
            assert await asyncio.gather(*waiting) == ["b1"] * count

    return asyncio.run(go())
