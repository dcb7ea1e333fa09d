"""Who is admitted to the models, in which order they run, and what happens to those who are not, on a clock of the
test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.serving.batching import Claim
from services.errors import Overloaded
from services.lanes import MAX_WAITING, Bypass, FallbackLane, ModelLane, Ticket, TooLateError
from tests.patience import PATIENCE_S


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """One model thread, held by a first request without work of its own until `go`."""

    def __init__(self, max_queue_ms: float = 1e9) -> None:
        self.clock = Clock()
        self.lane = ModelLane("test", 1, max_queue_ms, self.clock)
        self.gate = threading.Event()
        self.ran: list[int] = []
        held = threading.Event()

        def hold(claim: Claim) -> None:
            held.set()
            assert self.gate.wait(PATIENCE_S)

        self.first = self.lane.enter(hold, 0.0, 1e6)
        assert held.wait(PATIENCE_S)

    def enter(self, name: int, predicted_ms: float, deadline_ms: float) -> Any:
        """A request that takes what was predicted."""

        def job(claim: Claim) -> int:
            self.ran.append(name)
            self.clock.now += predicted_ms / 1000
            return name

        return self.lane.enter(job, predicted_ms, deadline_ms / 1000)

    def go(self) -> list[int]:
        """Run all that was admitted; their order."""
        self.gate.set()
        self.lane.close()
        self.lane.join()
        return self.ran


@pytest.fixture
def bench() -> Iterator[Bench]:
    result = Bench()
    yield result
    result.go()


def test_the_most_urgent_runs_first_and_of_those_alike_who_came_first(bench: Bench) -> None:
    for name, deadline_ms in ((1, 900.0), (2, 500.0), (3, 900.0), (4, 100.0)):
        assert isinstance(bench.enter(name, 10.0, deadline_ms), Ticket)
    assert (bench.lane.waiting, bench.lane.queued_ms) == (5, 40.0)
    assert bench.go() == [4, 2, 1, 3]
    assert bench.lane.waiting == 0


def test_who_cannot_be_served_in_time_bypasses_the_models_on_arrival(bench: Bench) -> None:
    bench.enter(1, 60.0, 100.0)
    bypass = bench.enter(2, 50.0, 100.0)
    assert bypass == Bypass("overload", "60 ms of work stand in front, and it would be late in 100 ms")
    assert bypass.degraded_reason.startswith("overload: 60 ms")
    assert isinstance(bench.enter(3, 40.0, 100.0), Ticket)
    assert bench.enter(4, 0.0, 0.0).reason == "budget"


def test_nobody_admitted_is_made_late_by_a_more_urgent_newcomer(bench: Bench) -> None:
    bench.enter(1, 90.0, 100.0)
    bypass = bench.enter(2, 20.0, 50.0)
    assert bypass == Bypass("overload", "0 ms of work stand in front, and a request behind it would be late in 50 ms")
    assert isinstance(bench.enter(3, 10.0, 50.0), Ticket)
    assert bench.go() == [3, 1]


def test_work_that_is_done_makes_room(bench: Bench) -> None:
    ticket = bench.enter(1, 60.0, 100.0)
    assert isinstance(bench.enter(2, 50.0, 100.0), Bypass)
    ticket.claim.spend(20.0)
    assert isinstance(bench.enter(2, 50.0, 100.0), Ticket)


def test_a_request_that_fills_more_than_its_time_needs_half_of_it(bench: Bench) -> None:
    assert isinstance(bench.enter(1, 40.0, 1000.0), Ticket)
    assert isinstance(bench.enter(2, 5000.0, 100.0), Ticket)
    assert isinstance(bench.enter(3, 5000.0, 100.0), Bypass)


def test_the_queue_is_bounded_in_predicted_time() -> None:
    bench = Bench(max_queue_ms=100.0)
    assert isinstance(bench.enter(1, 60.0, 60_000.0), Ticket)
    assert bench.enter(2, 50.0, 60_000.0) == Bypass("overload", "the queue holds 100 ms of work")
    bench.go()


def test_the_queue_is_bounded_in_memory_for_requests_that_cost_nothing(bench: Bench) -> None:
    admitted = [bench.enter(n, 0.0, 60_000.0) for n in range(MAX_WAITING)]
    assert all(isinstance(item, Ticket) for item in admitted)
    assert bench.enter(-1, 0.0, 60_000.0) == Bypass("full", f"{MAX_WAITING} requests wait for the models")


def test_a_request_whose_turn_comes_too_late_does_not_begin(bench: Bench) -> None:
    late, served = bench.enter(1, 30.0, 100.0), bench.enter(2, 30.0, 1000.0)
    bench.clock.now = 0.08
    assert bench.go() == [2]
    with pytest.raises(TooLateError, match="its turn came with 20 ms left for 30 ms of work"):
        late.future.result(0)
    assert served.future.result(0) == 2


def test_a_withdrawn_request_does_not_begin(bench: Bench) -> None:
    gone = bench.enter(1, 1.0, 100.0)
    gone.claim.withdraw()
    assert bench.go() == []
    assert gone.future.cancelled()


def test_what_a_job_raises_is_its_own(bench: Bench) -> None:
    broken: Any = bench.lane.enter(lambda claim: 1 / 0, 1.0, 1.0)
    after = bench.enter(2, 1.0, 2000.0)
    bench.go()
    with pytest.raises(ZeroDivisionError):
        broken.future.result(0)
    assert after.future.result(0) == 2


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 400)), min_size=1, max_size=25))
def test_all_who_are_admitted_end_in_time_when_the_predictions_hold(requests: list[tuple[int, int]]) -> None:
    bench = Bench()
    admitted = {}
    for name, (predicted_ms, deadline_ms) in enumerate(requests):
        if 2 * predicted_ms <= deadline_ms:  # Others are cut to their time by the reranker.
            result = bench.enter(name, predicted_ms, deadline_ms)
            if isinstance(result, Ticket):
                admitted[name] = result
    ended: dict[int, float] = {}
    for name, ticket in admitted.items():
        ticket.future.add_done_callback(lambda _, name=name: ended.update({name: bench.clock.now}))
    bench.go()
    assert all(ended[name] <= ticket.deadline + 1e-6 for name, ticket in admitted.items())
    assert sorted(bench.ran) == sorted(admitted)


def test_the_fallback_lane_runs_in_order_and_hurries_when_work_piles_up_or_time_is_out() -> None:
    clock = Clock()
    lane = FallbackLane("fallback", clock)
    gate, held = threading.Event(), threading.Event()

    def job(name: str) -> Callable[[bool], tuple[str, bool]]:
        def run(hurry: bool) -> tuple[str, bool]:
            held.set()
            assert gate.wait(PATIENCE_S)
            clock.now += 0.0 if hurry else 0.020
            return name, hurry

        return run

    alone = lane.submit(job("alone"), 1e6)
    assert held.wait(PATIENCE_S)
    result = [lane.submit(job(str(n)), 1e6) for n in range(60)]
    out_of_time = lane.submit(job("late"), 0.0)
    cancelled = lane.submit(lambda hurry: pytest.fail("cancelled"), 1e6)
    cancelled.cancel()
    broken = lane.submit(lambda hurry: 1 / 0, 1e6)
    gate.set()
    lane.close()
    lane.join()
    answers = [item.result(0) for item in result]
    assert [name for name, _ in answers] == [str(n) for n in range(60)]
    assert alone.result(0) == ("alone", False)
    assert answers[0][1] is True
    assert answers[-1][1] is False, "once little waits, nobody hurries"
    assert out_of_time.result(0) == ("late", True)
    with pytest.raises(ZeroDivisionError):
        broken.result(0)


def test_what_may_be_dropped_is_dropped_when_more_is_asked_than_can_be_answered_in_time() -> None:
    clock = Clock()
    lane = FallbackLane("fallback", clock)
    gate, held = threading.Event(), threading.Event()

    def job(hurry: bool) -> float:
        held.set()
        assert gate.wait(PATIENCE_S)
        clock.now += 0.010
        return clock.now

    lane._hurried_ms.value = 10.0
    first = lane.submit(job, 1.0, may_drop=True)
    assert held.wait(PATIENCE_S)
    asked = [lane.submit(job, 1.0, may_drop=True) for _ in range(200)]
    kept = lane.submit(job, 1.0)
    refused = [item for item in asked if item.done()]
    assert all(isinstance(item.exception(), Overloaded) for item in refused)
    assert 130 < len(refused) < 160, "half of a second is some 50 jobs"
    clock.now = 0.8
    gate.set()
    lane.close()
    lane.join()
    ended = [item.result(0) for item in asked if item.exception(0) is None]
    assert max(ended) < 1.02
    assert len(ended) >= 19
    assert len(ended) + sum(isinstance(item.exception(0), Overloaded) for item in asked) == 200
    assert kept.result(0) < 1.03, "what costs next to nothing is always answered"
    assert first.result(0)


def test_a_job_time_measured_at_a_busy_moment_is_corrected() -> None:
    clock = Clock()
    lane = FallbackLane("fallback", clock)
    lane._job_ms.value = 8_700.0

    def job(hurry: bool) -> bool:
        clock.now += 0.001
        return hurry

    hurried = [lane.submit(job, clock.now + 1.0).result(PATIENCE_S) for _ in range(60)]
    lane.close()
    lane.join()
    assert (hurried[0], hurried[-1]) == (True, False)
    assert lane._job_ms.value < 1000
