"""Batches across requests, with an engine and a clock of the test's own; and once with real models and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import ModelFileError, ScorerLost
from models.serving.batching import MAX_PADDING, Batcher, Claim, CostModel, Scores
from models.serving.loaded_bundle import LoadedBundle
from models.serving.running_mean import DECAY_AFTER_SKIP
from tests.patience import PATIENCE_S
from tests.small_bundle import BUDGET_MS, MACHINES

LATER = 1e9


@dataclass(frozen=True)
class Pair:
    """Encoded already: a name, which is its logit, and a length."""

    name: int
    length: int

    def __len__(self) -> int:
        return self.length


@dataclass
class Engine:
    """Takes 1 ms of its clock for a token that it computes. Waits at `gate`, so that work can gather before it."""

    padded: bool = True
    now: float = 0.0
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    lengths: list[list[int]] = field(default_factory=list)
    fault: BaseException | None = None
    poison: dict[int, str] = field(default_factory=dict)
    """What happens to pairs by name: `raises`, or the number that they get."""

    def clock(self) -> float:
        return self.now

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        return [Pair(int(text), len(query)) for query, text in pairs]

    def logits_of(self, encoded: Sequence[Any], batch_size: int = 32) -> NDArray[np.float32]:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        self.batches.append([pair.name for pair in encoded])
        self.lengths.append([pair.length for pair in encoded])
        self.now += (len(encoded) * max(map(len, encoded)) if self.padded else sum(map(len, encoded))) / 1000
        if any(self.poison.get(pair.name) == "raises" for pair in encoded):
            raise ValueError("a pair is not to be read")
        return np.array([float(self.poison.get(pair.name) or pair.name) for pair in encoded], dtype=np.float32)


@dataclass
class Bench:
    """A batcher and its engine; the first pair of a test holds it at the gate until `go`."""

    engine: Engine
    batcher: Batcher

    def hold(self) -> None:
        self.give([Pair(-1, 1)], LATER)
        assert self.engine.entered.wait(PATIENCE_S)

    def give(self, pairs: Sequence[Pair], deadline: float, claim: Claim | None = None) -> Future[Scores]:
        return self.batcher.score("one", pairs, deadline, claim or Claim())  # pyright: ignore[reportArgumentType]

    def go(self) -> list[list[int]]:
        """Let all run; the batches behind the one that held."""
        self.engine.gate.set()
        # Of the other engine, so that it shares no batch.
        self.batcher.score("two", [Pair(-2, 1)], 1e12, Claim()).result(PATIENCE_S)  # pyright: ignore[reportArgumentType]
        return self.engine.batches[1:-1]


def made(batch_tokens: int = 100, ms_per_token: float = 1.0, *, padded: bool = True) -> Bench:
    engine = Engine(padded)
    costs = {"one": CostModel(ms_per_token), "two": CostModel(ms_per_token)}
    engines = {"one": engine, "two": engine}
    return Bench(engine, Batcher(engines, costs, batch_tokens=batch_tokens, clock=engine.clock))


@pytest.fixture
def bench() -> Iterator[Bench]:
    result = made()
    yield result
    result.engine.gate.set()
    result.batcher.close()


def names(result: Future[Scores]) -> list[int | None]:
    scores = result.result(PATIENCE_S)
    return [int(logit) if scored else None for logit, scored in zip(scores.logits.tolist(), scores.scored, strict=True)]


def test_pairs_of_several_requests_share_a_batch_and_go_back_to_whom_they_belong(bench: Bench) -> None:
    bench.hold()
    result = [bench.give([Pair(10 * n, 10), Pair(10 * n + 1, 10)], LATER) for n in range(3)]
    assert [sorted(batch) for batch in bench.go()] == [[0, 1, 10, 11, 20, 21]]
    assert [names(item) for item in result] == [[0, 1], [10, 11], [20, 21]]


def test_the_earliest_deadline_comes_first_then_who_came_first(bench: Bench) -> None:
    bench.hold()
    for name, length, deadline in ((1, 90, 900.0), (2, 60, 500.0), (3, 30, 900.0), (4, 45, 100.0)):
        bench.give([Pair(name, length)], deadline)
    assert bench.go() == [[4], [2], [1], [3]]


def test_a_batch_holds_no_more_tokens_than_it_may_but_a_longer_pair_is_scored_alone(bench: Bench) -> None:
    bench.hold()
    bench.give([Pair(n, 20) for n in range(12)], LATER)
    long = bench.give([Pair(99, 500)], LATER)
    assert [len(batch) for batch in bench.go()] == [5, 5, 2, 1]
    assert names(long) == [99]


def test_a_batch_is_filled_with_pairs_of_its_length(bench: Bench) -> None:
    bench.hold()
    bench.give([Pair(1, 20), Pair(2, 40)], 10.0)
    bench.give([Pair(3, 41), Pair(4, 19), Pair(5, 21)], LATER)
    assert bench.go() == [[1, 4, 5], [2, 3]]


def test_an_engine_that_does_not_pad_takes_the_most_urgent_whatever_their_length() -> None:
    bench = made(padded=False)
    bench.hold()
    long = bench.give([Pair(1, 20), Pair(2, 60)], 10.0)
    bench.give([Pair(3, 19), Pair(4, 21)], LATER)
    claim = Claim(200.0)
    bench.give([Pair(5, 5), Pair(6, 15)], 50.0, claim)
    assert bench.go() == [[1, 2, 5, 6], [3, 4]]
    assert names(long) == [1, 2]
    assert claim.left_ms == 180.0, "each pair is charged its own tokens"
    assert bench.batcher.padded_tokens == bench.batcher.tokens
    bench.batcher.close()


def test_an_engine_that_does_not_pad_is_given_what_ends_in_time_without_padding() -> None:
    bench = made(padded=False)
    bench.hold()
    scores = bench.give([Pair(1, 10), Pair(2, 30), Pair(3, 10)], 0.001 + 0.045)
    assert bench.go() == [[1, 2]]
    assert names(scores) == [1, 2, None]
    bench.batcher.close()


def test_work_of_another_engine_waits_for_a_batch_of_its_own(bench: Bench) -> None:
    bench.hold()
    bench.give([Pair(1, 10)], LATER)
    bench.batcher.score("two", [Pair(2, 10)], LATER, Claim())  # pyright: ignore[reportArgumentType]
    bench.give([Pair(3, 10)], LATER)
    assert bench.go() == [[1, 3], [2]]


def test_what_would_end_late_is_given_back_and_a_batch_is_not_filled_past_the_deadline(bench: Bench) -> None:
    bench.hold()
    late, whole = Claim(), Claim()
    first = bench.give([Pair(n, 10) for n in range(5)], 0.001 + 0.034, late)
    bench.give([Pair(9, 10)], LATER, whole)
    assert bench.go() == [[0, 1, 2], [9]]
    assert names(first) == [0, 1, 2, None, None]
    assert (late.cut, whole.cut) == (True, False)
    assert names(bench.give([Pair(7, 10)], bench.engine.now + 0.0099)) == [None]
    assert names(bench.give([Pair(7, 10)], bench.engine.now + 0.0101)) == [7]


def test_a_prediction_that_lets_nothing_run_is_lowered_until_it_does() -> None:
    bench = made(ms_per_token=1000.0)
    bench.engine.gate.set()
    asked = 1
    while asked < 50 and names(bench.give([Pair(1, 10)], bench.engine.now + 1.0)) != [1]:
        asked += 1
    assert asked == 23
    measured = bench.batcher.predict("one", 10)
    assert measured < 10 * 1000 * DECAY_AFTER_SKIP**22
    assert names(bench.give([Pair(1, 10)], bench.engine.now - 1.0)) == [None]
    assert bench.batcher.predict("one", 10) == measured, "what came too late says nothing of the estimate"
    bench.batcher.close()


def test_what_nobody_waits_for_is_dropped_before_it_is_scored(bench: Bench) -> None:
    bench.hold()
    claim = Claim()
    gone = bench.give([Pair(1, 10)], 1.0, claim)
    step = bench.batcher.compute(lambda: pytest.fail("dropped"), 1.0, 1.0, claim)
    stays = bench.give([Pair(2, 10)], LATER)
    claim.withdraw()
    assert bench.go() == [[2]]
    assert (names(gone), step.result(PATIENCE_S), names(stays)) == ([None], None, [2])


def test_other_steps_take_their_turn_by_deadline(bench: Bench) -> None:
    bench.hold()
    claim = Claim(10.0)
    step = bench.batcher.compute(lambda: list(bench.engine.batches), 4.0, 300.0, claim)
    late = bench.batcher.compute(lambda: "late", 500.0, bench.engine.now + 0.4, claim)
    bench.give([Pair(1, 50)], 200.0)
    bench.give([Pair(2, 80)], 400.0)
    assert bench.go() == [[1], [2]]
    assert step.result(PATIENCE_S) == [[-1], [1]]
    assert late.result(PATIENCE_S) is None
    assert claim.left_ms == 6.0


def test_a_lost_scorer_hurts_those_in_the_batch_and_nobody_else(bench: Bench) -> None:
    bench.hold()
    inside = [bench.give([Pair(n, 10)], 10.0) for n in (1, 2)]
    broken = bench.batcher.compute(lambda: 1 / 0, 0.0, LATER, Claim())
    bench.engine.fault = ScorerLost("gone")
    bench.engine.gate.set()
    for first in inside:
        with pytest.raises(ScorerLost, match="gone"):
            first.result(PATIENCE_S)
    with pytest.raises(ZeroDivisionError):
        broken.result(PATIENCE_S)
    bench.engine.fault = None
    assert names(bench.give([Pair(3, 10)], LATER)) == [3]


@pytest.mark.parametrize("how", ["raises", "nan", "inf"])
def test_a_pair_that_the_model_fails_at_costs_the_others_of_its_batch_nothing(
    bench: Bench, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.hold()
    inside = [bench.give([Pair(n, 10) for n in group], LATER) for group in ((1, 2), (3,), (4, 5))]
    bench.engine.poison = {2: how, 3: how}
    bench.go()
    assert [names(result) for result in inside] == [[1, None], [None], [4, 5]]
    assert [result.result(0).failed.tolist() for result in inside] == [[False, True], [True], [False, False]]
    assert "one model" in caplog.text


def test_a_model_that_gives_no_numbers_is_not_loaded() -> None:
    engine = Engine(poison={1: "nan"})
    engine.gate.set()
    with pytest.raises(ModelFileError, match="no finite number"):
        CostModel.measure(engine, [("four", "1")])


def test_nothing_to_score_is_scored_at_once_and_nothing_is_taken_after_the_end() -> None:
    bench = made()
    assert names(bench.give([], 0.0)) == []
    bench.hold()
    waits = bench.give([Pair(1, 1)], LATER)
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(bench.batcher.close)
        while not bench.batcher._closed:
            threading.Event().wait(0.001)
        bench.engine.gate.set()
        closing.result(PATIENCE_S)
    assert names(waits) == [None]
    with pytest.raises(RuntimeError, match="closed"):
        bench.give([Pair(1, 1)], LATER)
    made().batcher.close()


@settings(deadline=None, max_examples=60)
@given(
    requests=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=8),
    batch_tokens=st.integers(60, 400),
    padded=st.booleans(),
)
def test_every_pair_is_scored_once_inside_the_budget_of_a_batch_with_little_padding(
    requests: list[list[int]], batch_tokens: int, padded: bool
) -> None:
    bench = made(batch_tokens, padded=padded)
    bench.hold()
    result = []
    for number, lengths in enumerate(requests):
        result.append(bench.give([Pair(100 * number + n, size) for n, size in enumerate(lengths)], LATER))
    bench.go()
    assert [names(item) for item in result] == [
        [100 * number + n for n in range(len(lengths))] for number, lengths in enumerate(requests)
    ]
    for lengths in bench.engine.lengths:
        computed = len(lengths) * max(lengths) if padded else sum(lengths)
        assert len(lengths) == 1 or computed <= batch_tokens
        assert computed - sum(lengths) <= MAX_PADDING * computed
    bench.batcher.close()
    of_batches = [len(lengths) * max(lengths) if padded else sum(lengths) for lengths in bench.engine.lengths]
    assert bench.batcher.padded_tokens == sum(of_batches)
    assert bench.batcher.tokens == sum(map(sum, bench.engine.lengths))


def test_the_cost_model_is_started_by_a_measurement() -> None:
    engine = Engine()
    engine.gate.set()
    measured = CostModel.measure(engine, [("four", "1"), ("query", "2")])
    assert measured.ms_per_token >= 0
    assert engine.lengths == [[4, 5], [4, 5]]
    assert CostModel(2.0).predict(30) == 60.0
    still = CostModel(2.0)
    still.observe(0, 100.0)
    assert still.ms_per_token == 2.0


def test_threads_that_share_a_bundle_get_what_each_would_get_alone(loaded: LoadedBundle) -> None:
    queries = [f"how do I clean the {machine}" for machine in MACHINES]

    def rank(query: str) -> list[tuple[int, float]]:
        documents = loaded.rank_documents(query, [f"wash the {name}" for name in MACHINES], BUDGET_MS)
        candidates = loaded.rank_candidates(query, loaded.retrieve(query, 8), BUDGET_MS)
        return [(item.index, item.score) for item in (*documents.items, *candidates.items)]

    alone = [rank(query) for query in queries]
    before = loaded._batcher.batches
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(rank, queries))
    assert loaded._batcher.batches > before
    for ours, theirs in zip(together, alone, strict=True):
        assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
