"""Tiered scoring: the lean score for all, the compact model for the best, the large model for the very best.

A time budget decides how far down each model goes: before a batch is scored its time is predicted by a cost model
measured at load, and when the budget would not hold, the rest keeps the score of the tier before and the ranking says
so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration, probability
from models.contracts import Tier
from models.serving_types import Ranked, Ranking
from models.settings import TiersSettings

if TYPE_CHECKING:
    from tokenizers import Encoding

_BATCH = 16
_FRESH_SHARE = 0.2
"""Weight of the newest measurement in the running time per token."""


class PairScorer(Protocol):
    """What a cross-encoder engine offers."""

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]: ...
    def logits_of(self, encoded: Sequence[Encoding], batch_size: int = 32) -> np.ndarray: ...


@dataclass(frozen=True)
class Scored:
    """Logits [n] of each tier's final score with the tier that gave it, before the sigmoid."""

    logits: NDArray[np.float64]
    tiers: tuple[Tier, ...]


def cascade(
    calibration: Calibration,
    inputs: Mapping[str, NDArray[np.floating]],
    compact_rows: NDArray[np.int64],
    large_rows: NDArray[np.int64],
) -> Scored:
    """Combine what each tier knows: rows in `large_rows` have both models' logits, those in `compact_rows` the
    compact one's.

    Pure. `inputs` holds arrays of one length; the model logits of rows that a model did not score are not read.
    """
    logits = calibration.tiers["lean"].logits(inputs)
    tiers: list[Tier] = ["lean"] * len(logits)
    names: tuple[tuple[Tier, str, NDArray[np.int64]], ...] = (
        ("compact", "compact", compact_rows),
        ("large", "cascade", large_rows),
    )
    for tier, scorer, rows in names:
        if len(rows):
            part = {name: np.asarray(values)[rows] for name, values in inputs.items()}
            logits[rows] = calibration.tiers[scorer].logits(part)
            for row in rows:
                tiers[row] = tier
    return Scored(logits, tuple(tiers))


def best_rows(logits: NDArray[np.float64], ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest logits, best first; ties by id."""
    order = sorted(range(len(logits)), key=lambda row: (-logits[row], ids[row]))
    return np.array(order[:count], dtype=np.int64)


class CostModel:
    """Predicted milliseconds of scoring: a running mean of the time per token, started by a measurement at load."""

    def __init__(self, ms_per_token: float) -> None:
        self.ms_per_token = ms_per_token

    @classmethod
    def measure(cls, scorer: PairScorer, samples: Sequence[tuple[str, str]]) -> CostModel:
        """Score the samples twice; the second time counts, the first warms up."""
        encoded = scorer.encode(samples)
        scorer.logits_of(encoded, _BATCH)
        started = time.perf_counter()
        scorer.logits_of(encoded, _BATCH)
        tokens = sum(len(encoding) for encoding in encoded)
        return cls(1000 * (time.perf_counter() - started) / max(tokens, 1))

    def predict(self, tokens: int) -> float:
        """Milliseconds for a batch of this many tokens."""
        return self.ms_per_token * tokens

    def observe(self, tokens: int, milliseconds: float) -> None:
        """Follow the machine: it may be busier now than at load."""
        if tokens:
            self.ms_per_token += _FRESH_SHARE * (milliseconds / tokens - self.ms_per_token)


class TieredReranker:
    """Ranks the texts of one request inside its budget."""

    def __init__(
        self,
        compact: PairScorer,
        large: PairScorer,
        calibration: Calibration,
        settings: TiersSettings,
        costs: Mapping[str, CostModel],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engines: Mapping[str, PairScorer] = {"compact": compact, "large": large}
        self._calibration = calibration
        self._settings = settings
        self._costs = costs
        self._clock = clock

    def rank(
        self,
        query: str,
        texts: Sequence[str],
        ids: Sequence[str],
        dense: NDArray[np.floating],
        lexical: NDArray[np.floating],
        budget_ms: float,
        passage_ids: Sequence[str | None] | None = None,
    ) -> Ranking:
        """Rank `texts`, all of the same query, best first.

        `ids` break ties; `dense` and `lexical` [n] are first-stage scores. At most `budget_ms` milliseconds are spent,
        less `tiers.reserve_ms`; `degraded` says that a model did not get as far as the settings ask.
        """
        if not texts:
            return Ranking([])
        deadline = self._clock() + (budget_ms - self._settings.reserve_ms) / 1000
        count = len(texts)
        inputs: dict[str, NDArray[np.float64]] = {
            "dense": np.asarray(dense, dtype=np.float64),
            "lexical": np.asarray(lexical, dtype=np.float64),
            "compact": np.zeros(count),
            "large": np.zeros(count),
        }
        none = np.empty(0, dtype=np.int64)
        rows: dict[str, NDArray[np.int64]] = {"compact": none, "large": none}
        stage_ms: dict[str, float] = {}
        reasons: list[str] = []
        tokens = truncated = 0
        wanted = count
        for tier, most in (
            ("compact", self._settings.compact_candidates),
            ("large", self._settings.large_candidates),
        ):
            # The large model runs behind the compact one, so it is never asked for more.
            wanted = min(wanted, most)
            scored = cascade(self._calibration, inputs, rows["compact"], rows["large"])
            pool = rows["compact"] if tier == "large" else np.arange(count)
            chosen = pool[best_rows(scored.logits[pool], [ids[int(row)] for row in pool], wanted)]
            started = self._clock()
            done, read, cut = self._score(tier, query, texts, chosen, inputs[tier], deadline)
            stage_ms[tier] = 1000 * (self._clock() - started)
            rows[tier] = chosen[:done]
            tokens += read
            truncated = max(truncated, cut)
            if done < wanted:
                reasons.append(f"{tier} scored {done} of {wanted} inside the budget")
        final = cascade(self._calibration, inputs, rows["compact"], rows["large"])
        scores = probability(final.logits)
        order = sorted(range(count), key=lambda row: (-final.logits[row], ids[row]))
        items = [
            Ranked(
                index=row,
                passage_id=None if passage_ids is None else passage_ids[row],
                score=float(scores[row]),
                logit=float(final.logits[row]),
                tier=final.tiers[row],
                dense_score=float(inputs["dense"][row]),
                lexical_score=float(inputs["lexical"][row]),
            )
            for row in order
        ]
        return Ranking(items, bool(reasons), "; ".join(reasons), stage_ms, truncated, tokens)

    def _score(
        self,
        tier: str,
        query: str,
        texts: Sequence[str],
        rows: NDArray[np.int64],
        logits: NDArray[np.float64],
        deadline: float,
    ) -> tuple[int, int, int]:
        """Score `rows` in batches while the deadline holds, into `logits`. Returns how many, tokens read, texts cut."""
        engine, cost = self._engines[tier], self._costs[tier]
        tokens = truncated = 0
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            encoded = engine.encode([(query, texts[int(row)]) for row in batch])
            sizes = [len(encoding) for encoding in encoded]
            padded = max(sizes) * len(sizes)
            started = self._clock()
            if started + cost.predict(padded) / 1000 > deadline:
                return start, tokens, truncated
            logits[batch] = engine.logits_of(encoded, _BATCH)
            cost.observe(padded, 1000 * (self._clock() - started))
            tokens += sum(sizes)
            truncated += sum(bool(encoding.overflowing) for encoding in encoded)
        return len(rows), tokens, truncated
