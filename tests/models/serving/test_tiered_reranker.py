"""Tiers under a budget, with engines whose time a clock of the test's own counts; and once with real engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, TierScorer, probability
from models.cascade.windows import EarlyExit
from models.contracts.tiers import TIERS
from models.serving.batching import Batcher, Claim, CostModel
from models.serving.loaded_bundle import LoadedBundle
from models.serving.protocol import Ranking, ranking_fault
from models.serving.score_cache import MemoryCache
from models.serving.tiered_reranker import TieredReranker
from models.settings import TiersSettings
from tests.small_bundle import BUDGET_MS, QUESTION


def weighing(**weights: float) -> TierScorer:
    """A scorer that adds the named features."""
    names = tuple(weights)
    ones = (1.0,) * len(names)
    return TierScorer(names, (0.0,) * len(names), ones, tuple(weights.values()), 1.0, 0.0)


CALIBRATION = Calibration(
    {
        "lean": weighing(retriever=1.0),
        "compact": weighing(compact=1.0),
        "large": weighing(large=1.0),
    },
    1,
    {},
)


class Clock:
    """Seconds that pass only when something is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Engine:
    """Scores the number in a text; takes `ms_per_token` of the clock's time, padding included."""

    padded = True
    clock: Clock
    factor: float = 1.0
    ms_per_token: float = 1.0
    longest: int = 10
    batches: list[list[str]] = field(default_factory=list)
    logit_of: dict[str, float] = field(default_factory=dict)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        encoded = []
        for query, text in pairs:
            words = f"{query} {text}".split()
            kept = words[: self.longest]
            encoded.append(Encoded(text, kept, len(words) > self.longest))
        return encoded

    def logits_of(self, encoded: Sequence[Any], batch_size: int = 32) -> NDArray[np.float32]:
        self.batches.append([item.text for item in encoded])
        padded = len(encoded) * max(len(item) for item in encoded)
        self.clock.now += padded * self.ms_per_token / 1000
        logits = [self.logit_of.get(item.text, self.factor * float(item.text.split()[0])) for item in encoded]
        return np.array(logits, dtype=np.float32)

    @property
    def scored(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


@dataclass
class Encoded:
    text: str
    kept: list[str]
    cut: bool

    def __len__(self) -> int:
        return len(self.kept)


@dataclass
class Bench:
    """A reranker with its engines."""

    clock: Clock
    compact: Engine
    large: Engine
    costs: Mapping[str, CostModel]
    batcher: Batcher
    reranker: TieredReranker

    def rank(
        self,
        texts: Sequence[str],
        budget_ms: float = 1e9,
        dense: Sequence[float] | None = None,
        claim: Claim | None = None,
    ) -> Ranking:
        ids = [f"{index:04d}" for index in range(len(texts))]
        scores = np.array(dense if dense is not None else [-index for index in range(len(texts))], dtype=float)
        return self.reranker.rank("q", texts, ids, scores, np.zeros(len(texts)), scores, budget_ms, ids, claim)


def bench(
    compact: int = 4,
    large: int = 2,
    ms_per_token: float = 1.0,
    reserve_ms: float = 0.001,
    batch_tokens: int = 48,
    early_exit: EarlyExit | None = None,
) -> Bench:
    clock = Clock()
    engines = Engine(clock, 1.0, ms_per_token), Engine(clock, 2.0, 2 * ms_per_token)
    costs = {"compact": CostModel(ms_per_token), "large": CostModel(2 * ms_per_token)}
    settings = TiersSettings(budget_ms=1e9, reserve_ms=reserve_ms, compact_candidates=compact, large_candidates=large)
    named = {"compact": engines[0], "large": engines[1]}
    batcher = Batcher(named, costs, batch_tokens=batch_tokens, clock=clock)
    calibration = replace(CALIBRATION, early_exit=early_exit or EarlyExit())
    return Bench(clock, *engines, costs, batcher, TieredReranker(batcher, calibration, settings))


def test_each_tier_scores_the_best_of_the_tier_before() -> None:
    built = bench()
    ranking = built.rank(["1 a", "9 b", "5 c", "7 d", "100 e", "200 f"])
    assert sorted(built.compact.scored) == ["1 a", "5 c", "7 d", "9 b"]
    assert built.large.scored == ["9 b", "7 d"]
    assert [(item.index, item.tier) for item in ranking.items] == [
        (1, "large"),
        (3, "large"),
        (2, "compact"),
        (0, "compact"),
        (4, "lean"),
        (5, "lean"),
    ]
    assert [item.logit for item in ranking.items] == pytest.approx([18, 14, 5, 1, -4, -5])
    assert [item.score for item in ranking.items] == probability(np.array([i.logit for i in ranking.items])).tolist()
    assert (ranking.degraded, ranking.degraded_reason) == (False, "")
    assert [item.passage_id for item in ranking.items][:2] == ["0001", "0003"]
    assert [item.dense_score for item in ranking.items] == [-1, -3, -2, 0, -4, -5]


def test_only_those_near_the_best_go_on_and_that_is_not_degraded() -> None:
    built = bench(early_exit=EarlyExit({"compact": 2.0, "large": 1.5}))
    ranking = built.rank(["1 a", "9 b", "8 c", "70 d"])
    assert sorted(built.compact.scored) == ["1 a", "8 c", "9 b"]
    assert built.large.scored == ["9 b", "8 c"]
    assert ranking.tier_counts == {"large": 2, "compact": 1, "lean": 1}
    assert (ranking.degraded, ranking.degraded_reason) == (False, "")


def test_a_best_one_that_stands_alone_ends_the_query() -> None:
    easy = bench(early_exit=EarlyExit({"compact": 0.5}))
    assert easy.rank(["1 a", "9 b"]).tier_counts == {"lean": 2}
    assert easy.compact.batches == []
    assert easy.large.batches == []
    decided = bench(early_exit=EarlyExit({"large": 3.0}))
    assert decided.rank(["1 a", "9 b"]).tier_counts == {"compact": 2}
    assert decided.large.batches == []


def test_the_large_model_may_follow_the_first_stage_at_once() -> None:
    built = bench(early_exit=EarlyExit({"large": 1.5}, frozenset({"compact"})))
    ranking = built.rank(["1 a", "9 b", "5 c", "7 d"])
    assert built.compact.batches == []
    assert sorted(built.large.scored) == ["1 a", "9 b"]
    assert ranking.tier_counts == {"large": 2, "lean": 2}
    assert (ranking.degraded, ranking.degraded_reason) == (False, "")


def test_fewer_texts_than_the_tiers_may_score_is_not_degraded() -> None:
    result = bench().rank(["3 a"])
    assert ([item.tier for item in result.items], result.degraded) == (["large"], False)
    assert bench().rank([]) == Ranking([])


def test_tiers_may_be_switched_off() -> None:
    assert bench(compact=0, large=0).rank(["1 a", "2 b"]).tier_counts == {"lean": 2}
    assert bench(compact=3, large=0).rank(["1 a", "2 b"]).tier_counts == {"compact": 2}
    without_compact = bench(compact=0, large=2).rank(["1 a", "2 b"])
    assert (without_compact.tier_counts, without_compact.degraded) == ({"lean": 2}, False)
    more_large = bench(compact=2, large=9).rank(["1 a", "2 b", "3 c"])
    assert (more_large.tier_counts, more_large.degraded) == ({"large": 2, "lean": 1}, False)


def test_equal_scores_are_ordered_by_id() -> None:
    result = bench(compact=3, large=0).rank(["5 a", "5 b", "5 c", "5 d"], dense=[1, 1, 1, 1])
    assert [item.index for item in result.items] == [0, 1, 2, 3]
    assert result.tier_counts == {"compact": 3, "lean": 1}


@pytest.mark.parametrize("budget_ms", [0.0, -5.0])
def test_without_time_all_are_lean_and_no_engine_runs(budget_ms: float) -> None:
    built = bench()
    ranking = built.rank(["1 a", "9 b"], budget_ms)
    assert ranking.tier_counts == {"lean": 2}
    assert ranking.degraded_reason == "compact scored 0 of 2 inside the budget"
    assert (built.compact.batches, built.large.batches, ranking.tokens) == ([], [], 0)


def test_what_the_budget_holds_is_scored() -> None:
    built = bench(compact=40, large=2)
    texts = [f"{number} w" for number in range(40)]
    ranking = built.rank(texts, budget_ms=110.0, dense=list(range(40)))
    # A pair has 3 tokens of 1 ms: two batches of 16 take 96 ms, 4 more pairs end at 108 ms; then large has 2 ms left.
    assert [len(batch) for batch in built.compact.batches] == [16, 16, 4]
    assert set(built.compact.scored) == {f"{number} w" for number in range(4, 40)}
    assert ranking.tier_counts == {"compact": 36, "lean": 4}
    assert ranking.degraded_reason == (
        "compact scored 36 of 40 inside the budget; large scored 0 of 2 inside the budget"
    )
    assert built.clock.now <= 100 + 0.110


def test_a_caller_who_left_costs_no_model_anything() -> None:
    built, claim = bench(), Claim(50.0)
    claim.withdraw()
    assert built.rank(["1 a", "9 b"], claim=claim).tier_counts == {"lean": 2}
    assert (built.compact.batches, built.large.batches) == ([], [])


def test_what_is_left_of_a_claim_falls_with_what_is_scored() -> None:
    built, claim = bench(), Claim(100.0)
    built.rank(["1 a", "2 b"], claim=claim)
    assert claim.left_ms == pytest.approx(100 - 2 * 3 * 1 - 2 * 3 * 2)
    assert claim.spent_ms == pytest.approx(2 * 3 * 1 + 2 * 3 * 2)
    assert claim.cut is False


def test_a_claim_says_when_time_did_not_suffice_for_all() -> None:
    built, claim = bench(compact=16, large=0, reserve_ms=20.0), Claim(100.0)
    built.rank([f"{n} w" for n in range(16)], budget_ms=60.0, claim=claim)
    assert claim.cut is True


def test_the_reserve_is_not_spent_on_scoring() -> None:
    result = bench(compact=16, large=0, reserve_ms=20.0).rank([f"{n} w" for n in range(16)], budget_ms=60.0)
    assert result.tier_counts == {"compact": 13, "lean": 3}
    result = bench(compact=16, large=0, reserve_ms=10.0).rank([f"{n} w" for n in range(16)], budget_ms=60.0)
    assert result.tier_counts == {"compact": 16}


@settings(deadline=None)
@given(
    count=st.integers(0, 60),
    compact=st.integers(0, 50),
    large=st.integers(0, 50),
    budget_ms=st.floats(-10, 3000),
    reserve_ms=st.floats(0.001, 50),
)
def test_any_budget_gives_a_whole_ranking_in_time(
    count: int, compact: int, large: int, budget_ms: float, reserve_ms: float
) -> None:
    built = bench(compact, large, reserve_ms=reserve_ms)
    rng = np.random.default_rng(count)
    texts = [f"{value:.3f} {'w ' * (index % 7)}" for index, value in enumerate(rng.normal(size=count))]
    ranking = built.rank(texts, budget_ms)
    built.batcher.close()
    assert ranking_fault(ranking, count) == ""
    assert 1000 * (built.clock.now - 100) <= max(0.0, budget_ms - reserve_ms) + 1e-6
    assert ranking.tier_counts.get("large", 0) <= min(large, compact)
    assert ranking.degraded == bool(ranking.degraded_reason)
    assert set(built.large.scored) <= set(built.compact.scored)


def test_texts_that_were_cut_are_counted_once_and_one_of_just_that_length_is_not() -> None:
    built = bench(compact=3, large=3)
    ranking = built.rank(["1 " + "w " * 8, "2 " + "w " * 9, "3 w"])
    assert ranking.truncated == 1
    assert ranking.tokens == 2 * (10 + 10 + 3)


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_what_is_not_finite_was_not_scored_and_is_not_remembered(logit: float) -> None:
    cache = MemoryCache(2**20)
    made = bench(large=0)
    made.compact.logit_of["1"] = logit
    reranker = TieredReranker(
        made.batcher, CALIBRATION, TiersSettings(large_candidates=0, compact_candidates=4), cache, {"compact": b"c"}
    )
    scores = np.array([3.0, 2.0, 1.0])
    for _ in range(2):
        ranking = reranker.rank("q", ["1", "2", "3"], ["a", "b", "c"], scores, scores * 0, scores, 1e9)
        assert ranking_fault(ranking, 3) == ""
        tiers = {item.index: item.scored_by for item in ranking.items}
        assert tiers == {0: "lean", 1: "compact", 2: "compact"}
        assert (ranking.degraded, ranking.degraded_reason) == (True, "fault: compact has no score for 1 of 3")
    assert cache.entries == 2


def test_stages_are_timed_by_the_clock() -> None:
    result = bench().rank(["1 a", "2 b", "3 c", "4 d"])
    assert dict(result.stage_ms) == pytest.approx({"compact": 4 * 3 * 1.0, "large": 2 * 3 * 2.0})


def test_an_engine_that_became_slow_is_trusted_less() -> None:
    built = bench(compact=16, large=0)
    texts = [f"{number} w" for number in range(16)]
    built.compact.ms_per_token = 10.0
    assert built.rank(texts, budget_ms=100.0).tier_counts == {"compact": 16}
    assert built.costs["compact"].ms_per_token == pytest.approx(1 + 0.2 * 9)
    # At 2.8 ms a token, 11 pairs of 3 tokens are expected to fit.
    assert built.rank(texts, budget_ms=100.0).tier_counts == {"compact": 11, "lean": 5}
    for _ in range(30):
        built.rank(texts)
    assert built.costs["compact"].ms_per_token == pytest.approx(10.0, abs=0.1)


def test_the_scorers_of_the_tests_have_the_features_of_real_ones() -> None:
    for tier in TIERS:
        assert set(CALIBRATION.tiers[tier.name].features) <= set(tier.features)


def test_real_engines_agree_with_the_scripted_ones_on_how_they_are_used(loaded: LoadedBundle) -> None:
    candidates = loaded.retrieve(QUESTION, 8)
    whole = loaded.rank_candidates(QUESTION, candidates, BUDGET_MS)
    assert ranking_fault(whole, 8) == ""
    assert whole.tier_counts == {"large": 4, "compact": 4}
    lean = loaded.rank_candidates(QUESTION, candidates, 0.0)
    assert lean.tier_counts == {"lean": 8}
    assert lean.tokens == 0 < whole.tokens
