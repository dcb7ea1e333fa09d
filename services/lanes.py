"""The two queues in front of a bundle: requests that the models can serve in time, and those that are answered
without.

Who is admitted to the models is decided on arrival, from the predicted time of what was admitted before and everybody's
deadline: with the most urgent work first (EDF), a request is admitted when it and all behind it still end in time
(Liu and Layland, 1973). So the queue is bounded by time, not by a number of requests, and an admitted request is not
made late by a later one.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Generic, Literal, TypeVar

from models.serving.batching import Claim
from models.serving.running_mean import FALLBACK_JOB_WEIGHT, RunningMean
from services.errors import Overloaded

BypassReason = Literal["budget", "overload", "late", "full", "scorer"]
"""Why a request is answered without the models: no time at all, too much work in front, time ran out, too many
requests, the process that runs them is gone."""
MAX_WAITING = 512
"""Requests that wait for the models: a bound of memory only, since predicted time runs out before."""
_MIN_SHARE = 0.5
"""Share of its time that a request must get where its work fills more than all of it."""
_WAITED_SHARE = 0.5
"""Of its time that a job which may be dropped may wait behind others."""
_HURRY_MS = 50.0
"""Work that may wait in the fallback lane before jobs are told to hurry."""
_ROUNDING_MS = 0.001
"""By which sums of times may differ that are equal."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bypass:
    """That a request is answered without the models, and why."""

    reason: BypassReason
    text: str

    @property
    def degraded_reason(self) -> str:
        """As it stands in the answer."""
        return f"{self.reason}: {self.text}"


class TooLateError(Exception):
    """The models had not begun with a request when its time no longer sufficed."""


@dataclass(eq=False)
class Ticket(Generic[T]):
    """A request that was admitted. `deadline` is the time (clock) at which the models must have ended."""

    job: Callable[[Claim], T]
    deadline: float
    need_ms: float
    claim: Claim
    number: int
    future: Future[T] = field(default_factory=Future)

    def __lt__(self, other: Ticket[Any]) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class ModelLane:
    """Runs admitted requests on `workers` threads, the most urgent first. Times are those of `clock`, seconds."""

    def __init__(
        self, name: str, workers: int, max_queue_ms: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_queue_ms = max_queue_ms
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[Ticket[Any]] = []
        self._running: list[Ticket[Any]] = []
        self._numbers = count()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests admitted and not answered yet."""
        with self._changed:
            return len(self._waiting) + len(self._running)

    @property
    def queued_ms(self) -> float:
        """Predicted milliseconds of their work that is not done."""
        with self._changed:
            return sum(ticket.claim.left_ms for ticket in (*self._waiting, *self._running))

    def enter(self, job: Callable[[Claim], T], predicted_ms: float, deadline: float) -> Ticket[T] | Bypass:
        """Admit a job, or say why not; never waits.

        The ticket's future raises `TooLateError` when the job had not begun in time, and is cancelled when its claim
        was withdrawn before.
        """
        with self._changed:
            left_ms = 1000 * (deadline - self._clock())
            need_ms = predicted_ms if predicted_ms <= left_ms else _MIN_SHARE * left_ms
            ticket = Ticket(job, deadline, need_ms, Claim(min(predicted_ms, max(left_ms, 0.0))), next(self._numbers))
            if bypass := self._bypass(ticket):
                return bypass
            heapq.heappush(self._waiting, ticket)
            self._changed.notify()
            return ticket

    def close(self) -> None:
        """Let the threads end once nothing waits; no `enter` may follow."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the threads; behind `close`."""
        for thread in self._threads:
            thread.join()

    def _bypass(self, new: Ticket[Any]) -> Bypass | None:
        now = self._clock()
        left_ms = 1000 * (new.deadline - now)
        if left_ms <= 0:
            return Bypass("budget", "the time budget has no room for the models")
        if len(self._waiting) >= MAX_WAITING:
            return Bypass("full", f"{MAX_WAITING} requests wait for the models")
        before_ms = total_ms = 0.0
        behind = False
        for ticket in sorted((*self._running, *self._waiting, new)):
            until_ms = 1000 * (ticket.deadline - now)
            work_ms = min(ticket.claim.left_ms, max(until_ms, 0.0))
            if ticket is new:
                behind, before_ms = True, total_ms
            if behind and total_ms + min(work_ms, ticket.need_ms) > until_ms + _ROUNDING_MS:
                who = "it" if ticket is new else "a request behind it"
                text = f"{before_ms:.0f} ms of work stand in front, and {who} would be late in {left_ms:.0f} ms"
                return Bypass("overload", text)
            total_ms += work_ms
        if len(self._running) + len(self._waiting) and total_ms > self._max_queue_ms:
            return Bypass("overload", f"the queue holds {self._max_queue_ms:.0f} ms of work")
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                ticket = heapq.heappop(self._waiting)
                self._running.append(ticket)
            settle = self._outcome(ticket)
            # Before the future resolves: an answered request must not count as waiting.
            with self._changed:
                self._running.remove(ticket)
            settle()

    def _outcome(self, ticket: Ticket[Any]) -> Callable[[], object]:
        """Run a job unless it is late or withdrawn; returns what tells its future."""
        future = ticket.future
        if ticket.claim.withdrawn:
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return lambda: None
        left_ms = 1000 * (ticket.deadline - self._clock())
        if ticket.need_ms > left_ms + _ROUNDING_MS:
            text = f"its turn came with {left_ms:.0f} ms left for {ticket.need_ms:.0f} ms of work"
            return partial(future.set_exception, TooLateError(text))
        try:
            return partial(future.set_result, ticket.job(ticket.claim))
        except BaseException as error:
            return partial(future.set_exception, error)


class FallbackLane:
    """Runs jobs of a few milliseconds in order, on a thread that no model holds up.

    A job is told to hurry when more work than `_HURRY_MS` waits behind it or its deadline is near. One that takes long
    also then may be dropped: on arrival, when what waits would take more than `_WAITED_SHARE` of its time, and in its
    turn, when its time is over and others wait.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._job_ms = RunningMean(1.0, FALLBACK_JOB_WEIGHT)
        self._hurried_ms = RunningMean(1.0, FALLBACK_JOB_WEIGHT)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[bool], T], deadline: float, *, may_drop: bool = False) -> Future[T]:
        """Queue a job; it gets whether it must hurry. The future of one that was dropped raises `Overloaded`."""
        future: Future[T] = Future()
        waiting_s = self._jobs.qsize() * self._hurried_ms.value / 1000
        if may_drop and waiting_s > _WAITED_SHARE * max(deadline - self._clock(), 0.0):
            future.set_exception(_overloaded())
        else:
            self._jobs.put(lambda: self._serve(job, deadline, future, may_drop))
        return future

    def close(self) -> None:
        """Let the thread end behind the last job; no `submit` may follow."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the thread; behind `close`."""
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _serve(self, job: Callable[[bool], T], deadline: float, future: Future[T], may_drop: bool) -> None:
        if not future.set_running_or_notify_cancel():
            return
        started = self._clock()
        if may_drop and started > deadline and self._jobs.qsize():
            future.set_exception(_overloaded())
            return
        busy = self._jobs.qsize() * self._job_ms.value > _HURRY_MS
        hurry = busy or started + self._job_ms.value / 1000 > deadline
        try:
            answer = job(hurry)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(answer)
        (self._hurried_ms if hurry else self._job_ms).observe(1000 * (self._clock() - started))
        if hurry and not busy and started < deadline:
            self._job_ms.lower()


def _overloaded() -> Overloaded:
    return Overloaded("More is asked than can be answered in time", "Ask again later, or give more time")
