"""The one thread that computes for all requests of a bundle: pairs of many callers share batches, most urgent first.

Requests hand over encoded pairs (`Batcher.score`) or a step of another kind (`Batcher.compute`) with a deadline, from
threads of their own, and wait for a future. The thread always turns to the work with the earliest deadline (EDF; Liu
and Layland, 1973) and fills its batch with other waiting pairs, whoever they belong to: the next most urgent, or for an
engine that pads a batch to its longest pair those of about the same length. What the prediction says would end late is
given back undone, and what nobody waits for any more is dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelFileError, ScorerLost
from models.serving.running_mean import TOKEN_COST_WEIGHT, RunningMean

if TYPE_CHECKING:
    from models.cross_encoder.pair_tokenizer import EncodedPair

_LOG = logging.getLogger(__name__)
MAX_PADDING = 0.1
"""Share of a batch's tokens that may be padding."""

T = TypeVar("T")


class Engine(Protocol):
    """What scores pairs. `encode` is called by any thread, `logits_of` by one.

    A `padded` engine computes a batch as a rectangle, as long as its longest pair. Others take each pair for as long as
    it is.
    """

    @property
    def padded(self) -> bool: ...

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]: ...
    def logits_of(self, encoded: Sequence[EncodedPair], batch_size: int = 32) -> np.ndarray: ...


class CostModel:
    """Predicted milliseconds of scoring: a running mean of the time per token, started by a measurement at load."""

    def __init__(self, ms_per_token: float) -> None:
        self._ms_per_token = RunningMean(ms_per_token, TOKEN_COST_WEIGHT)

    @property
    def ms_per_token(self) -> float:
        """Milliseconds that a token is expected to take now."""
        return self._ms_per_token.value

    @classmethod
    def measure(cls, engine: Engine, samples: Sequence[tuple[str, str]]) -> CostModel:
        """Score the samples twice; the second time counts, the first warms up.

        Raises `ModelFileError` for scores that are not finite.
        """
        encoded = engine.encode(samples)
        size = max(len(encoded), 1)
        if not np.isfinite(engine.logits_of(encoded, size)).all():
            raise ModelFileError("the model scores its own passages with what is no finite number", "Train it again.")
        started = time.perf_counter()
        engine.logits_of(encoded, size)
        computed = _computed_tokens([len(encoding) for encoding in encoded], padded=engine.padded)
        return cls(1000 * (time.perf_counter() - started) / max(computed, 1))

    def predict(self, tokens: int) -> float:
        """Milliseconds for a batch of this many tokens, padding included where the engine pads."""
        return self.ms_per_token * tokens

    def observe(self, tokens: int, milliseconds: float) -> None:
        """Follow the machine: it may be busier now than at load."""
        if tokens:
            self._ms_per_token.observe(milliseconds / tokens)

    def lower(self) -> None:
        """Expect a little less, after nothing was run since too much was expected."""
        self._ms_per_token.lower()


class Claim:
    """What one request still claims of the models.

    `left_ms` is the predicted time of its work that is not done yet, `spent_ms` of what was done. Work of a `withdrawn`
    claim is dropped: its caller left, or was answered in another way. `cut` says that some of its work was not done in
    time.
    """

    __slots__ = ("cut", "left_ms", "spent_ms", "withdrawn")

    def __init__(self, left_ms: float = 0.0) -> None:
        self.left_ms = left_ms
        self.spent_ms = 0.0
        self.withdrawn = False
        self.cut = False

    def withdraw(self) -> None:
        """Say that nobody waits for the rest."""
        self.withdrawn = True

    def spend(self, milliseconds: float) -> None:
        """Take work that was done off what is left."""
        self.left_ms = max(0.0, self.left_ms - milliseconds)
        self.spent_ms += milliseconds


@dataclass(frozen=True)
class Scores:
    """Logits [n] of the pairs that were `scored` [n]; the other places are not to be read. Of the pairs that `failed`
    [n] the model raised an error, or gave no finite number."""

    logits: NDArray[np.float64]
    scored: NDArray[np.bool_]
    failed: NDArray[np.bool_]


@dataclass(eq=False)
class _Pairs:
    """The pairs of one request for one engine, best first."""

    engine: str
    encoded: Sequence[EncodedPair]
    deadline: float
    claim: Claim
    number: int
    logits: NDArray[np.float64]
    waiting: list[int]
    scored: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    done: Future[Scores] = field(default_factory=Future)

    def settle(self) -> None:
        self.waiting = []
        self.done.set_result(Scores(self.logits, self.scored, self.failed))


@dataclass(eq=False)
class _Step:
    """A call that takes `ms` of the thread's time."""

    call: Callable[[], Any]
    ms: float
    deadline: float
    claim: Claim
    number: int
    done: Future[Any] = field(default_factory=Future)


_Work = _Pairs | _Step


class Batcher:
    """Scores the pairs of all requests with `engines`, each batch at most `batch_tokens` tokens, padding included where
    the engine pads.

    The thread starts with the first work and ends with `close`; `on_start` runs on it first. `clock` gives seconds, and
    deadlines are its values.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        costs: Mapping[str, CostModel],
        *,
        batch_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self._engines = engines
        self._costs = costs
        self._batch_tokens = batch_tokens
        self.clock = clock
        self._on_start = on_start
        self._changed = threading.Condition()
        self._work: list[_Work] = []
        self._numbers = count()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.tokens = self.padded_tokens = self.batches = 0
        """Tokens scored so far, without and with padding, and in how many batches."""

    def encode(self, engine: str, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
        """Token ids of each pair, in the calling thread."""
        return self._engines[engine].encode(pairs)

    def predict(self, engine: str, tokens: int) -> float:
        """Milliseconds that an engine takes for this many tokens."""
        return self._costs[engine].predict(tokens)

    def score(self, engine: str, encoded: Sequence[EncodedPair], deadline: float, claim: Claim) -> Future[Scores]:
        """Score pairs, the most important first, as far as the deadline and the other requests allow.

        A pair that the engine fails at is `failed`; the others of its batch are scored. The future raises `ScorerLost`.
        """
        pairs = _Pairs(
            engine,
            encoded,
            deadline,
            claim,
            next(self._numbers),
            np.zeros(len(encoded), dtype=np.float64),
            list(range(len(encoded))),
            np.zeros(len(encoded), dtype=np.bool_),
            np.zeros(len(encoded), dtype=np.bool_),
        )
        if not encoded:
            pairs.settle()
        else:
            self._add(pairs)
        return pairs.done

    def compute(self, call: Callable[[], T], ms: float, deadline: float, claim: Claim) -> Future[T | None]:
        """Run another call that takes about `ms` milliseconds in its turn; None when it would have ended late."""
        step = _Step(call, ms, deadline, claim, next(self._numbers))
        self._add(step)
        return step.done

    def close(self) -> None:
        """End the thread; work that still waits is given back undone."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _add(self, work: _Work) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("the bundle is closed")
            self._work.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        if self._on_start is not None:
            self._on_start()
        while True:
            with self._changed:
                while not self._work and not self._closed:
                    self._changed.wait()
                if self._closed:
                    for work in self._work:
                        _give_back(work)
                    self._work = []
                    return
                work = min(self._work, key=lambda waiting: (waiting.deadline, waiting.number))
                batch = [] if isinstance(work, _Step) else self._batch_around(work)
            if isinstance(work, _Step):
                self._take_step(work)
            elif batch:
                self._score(work.engine, batch)
            else:
                if not work.claim.withdrawn and not work.scored.any() and self.clock() < work.deadline:
                    self._costs[work.engine].lower()
                self._remove(work)
                _give_back(work)

    def _take_step(self, step: _Step) -> None:
        self._remove(step)
        if step.claim.withdrawn or self.clock() + step.ms / 1000 > step.deadline:
            _give_back(step)
            return
        try:
            outcome = step.call()
        except BaseException as error:
            step.done.set_exception(error)
        else:
            step.claim.spend(step.ms)
            step.done.set_result(outcome)

    def _batch_around(self, urgent: _Pairs) -> list[tuple[_Pairs, int]]:
        """The most important pair of the most urgent request, and others that wait for the same engine: the next most
        urgent, or for a padded engine those of about its length. Empty when that pair alone would be late."""
        if urgent.claim.withdrawn:
            return []
        cost, padded = self._costs[urgent.engine], self._engines[urgent.engine].padded
        slack_ms = 1000 * (urgent.deadline - self.clock())
        first = urgent.waiting[0]
        length = len(urgent.encoded[first])
        if cost.predict(length) > slack_ms:
            return []
        others = [
            (padded * abs(len(pairs.encoded[index]) - length), pairs.deadline, pairs.number, rank, pairs, index)
            for pairs in self._work
            if isinstance(pairs, _Pairs) and pairs.engine == urgent.engine and not pairs.claim.withdrawn
            for rank, index in enumerate(pairs.waiting)
            if pairs is not urgent or index != first
        ]
        batch, longest, tokens = [(urgent, first)], length, length
        for *_, pairs, pair_index in sorted(others, key=lambda other: other[:4]):
            size = len(pairs.encoded[pair_index])
            computed = max(longest, size) * (len(batch) + 1) if padded else tokens + size
            if computed > self._batch_tokens or cost.predict(computed) > slack_ms:
                break
            if computed - tokens - size > MAX_PADDING * computed:
                continue
            batch.append((pairs, pair_index))
            longest, tokens = max(longest, size), tokens + size
        return batch

    def _score(self, engine: str, batch: Sequence[tuple[_Pairs, int]]) -> None:
        encoded = [pairs.encoded[index] for pairs, index in batch]
        padded, sizes = self._engines[engine].padded, [len(encoding) for encoding in encoded]
        computed = _computed_tokens(sizes, padded=padded)
        cost = self._costs[engine]
        ms_of = {size: cost.predict(max(sizes) if padded else size) for size in sizes}
        started = self.clock()
        try:
            logits = self._logits(engine, encoded)
        except BaseException as error:
            for pairs in {id(pairs): pairs for pairs, _ in batch}.values():
                self._remove(pairs)
                pairs.done.set_exception(error)
            return
        cost.observe(computed, 1000 * (self.clock() - started))
        self.batches += 1
        self.padded_tokens += computed
        self.tokens += sum(sizes)
        finished = []
        for (pairs, index), size, logit in zip(batch, sizes, logits, strict=True):
            finite = bool(np.isfinite(logit))
            pairs.logits[index], pairs.scored[index], pairs.failed[index] = logit, finite, not finite
            pairs.waiting.remove(index)
            pairs.claim.spend(ms_of[size])
            if not pairs.waiting:
                finished.append(pairs)
        for pairs in finished:
            self._remove(pairs)
            pairs.settle()

    def _logits(self, engine: str, encoded: Sequence[EncodedPair]) -> NDArray[np.float64]:
        """Logits [n]; what is not finite is no score. Where the engine raises, halves find the pair at fault.

        Raises `ScorerLost`.
        """
        try:
            logits = np.asarray(self._engines[engine].logits_of(encoded, len(encoded)), dtype=np.float64)
        except ScorerLost:
            raise
        except Exception as error:
            if len(encoded) > 1:
                half = len(encoded) // 2
                return np.concatenate([self._logits(engine, encoded[:half]), self._logits(engine, encoded[half:])])
            # Its text may stand in that of the error.
            _LOG.error("the %s model fails at a pair of %s tokens: %s", engine, len(encoded[0]), type(error).__name__)
            return np.array([np.nan])
        if not np.isfinite(logits).all():
            count = int(np.count_nonzero(~np.isfinite(logits)))
            _LOG.error("the %s model gives %s of %s scores that are not finite", engine, count, len(logits))
        return logits

    def _remove(self, work: _Work) -> None:
        with self._changed:
            self._work.remove(work)


def _computed_tokens(sizes: Sequence[int], *, padded: bool) -> int:
    """Tokens that an engine computes for pairs of these sizes."""
    return len(sizes) * max(sizes, default=0) if padded else sum(sizes)


def _give_back(work: _Work) -> None:
    work.claim.cut = True
    if isinstance(work, _Pairs):
        work.settle()
    else:
        work.done.set_result(None)
