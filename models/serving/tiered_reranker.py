"""Tiered scoring: the lean score for all, the compact model for the best, the large model for the very best.

A time budget decides how far down each model goes: before a batch is scored its time is predicted by a cost model
measured at load, and when the budget would not hold, the rest keeps the score of the tier before and the ranking says
so. The pairs of all requests are scored together (`models.serving.batching`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, probability
from models.cascade.cascade import cascade
from models.cascade.windows import contenders
from models.serving.batching import Batcher, Claim, Scores
from models.serving.protocol import Ranked, Ranking
from models.serving.score_cache import KnownScore, ScoreCache, pair_key
from models.settings import TiersSettings

_ENCODED_TOGETHER = 64
"""Pairs; while those are scored, the next are encoded, unless the budget is spent."""


@dataclass(frozen=True)
class _TierScores:
    """Rows that have a model's logit; those whose logit was known before; tokens read; texts cut."""

    rows: NDArray[np.int64]
    known: set[int]
    tokens: int
    truncated: int


class TieredReranker:
    """Ranks the texts of one request inside its budget; any number of threads may call it."""

    def __init__(
        self,
        batcher: Batcher,
        calibration: Calibration,
        settings: TiersSettings,
        cache: ScoreCache | None = None,
        models: Mapping[str, bytes] | None = None,
    ) -> None:
        """`models` names the model of each tier in the cache (`models.serving.score_cache.model_prefix`)."""
        self._batcher = batcher
        self._calibration = calibration
        self._settings = settings
        self._cache = cache
        self._models = models or {}
        self._clock = batcher.clock

    def rank(
        self,
        query: str,
        texts: Sequence[str],
        ids: Sequence[str],
        dense: NDArray[np.floating],
        lexical: NDArray[np.floating],
        budget_ms: float,
        passage_ids: Sequence[str | None] | None = None,
        claim: Claim | None = None,
    ) -> Ranking:
        """Rank `texts`, all of the same query, best first.

        `ids` break ties; `dense` and `lexical` [n] are first-stage scores. At most `budget_ms` milliseconds are spent,
        less `tiers.reserve_ms`; `degraded` says that a model did not get as far as the settings ask. Known scores take
        the place of the model's at any budget: what is ranked and how does not depend on them, but for the time.
        """
        if not texts:
            return Ranking([])
        claim = claim or Claim()
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
        known: dict[str, set[int]] = {"lean": set()}
        stage_ms: dict[str, float] = {}
        reasons: list[str] = []
        tokens = truncated = 0
        stopping = self._calibration.stopping
        steps = (
            ("compact", self._settings.compact_candidates if stopping.through_compact else 0, stopping.compact),
            ("large", self._settings.large_candidates, stopping.large),
        )
        for tier, most, window in steps:
            scored = cascade(self._calibration, inputs, rows["compact"], rows["large"])
            # Behind the compact model the large one is never asked for more.
            pool = rows["compact"] if tier == "large" and stopping.through_compact else np.arange(count)
            chosen = pool[contenders(scored.logits[pool], [ids[int(row)] for row in pool], most, window)]
            wanted = len(chosen)
            started = self._clock()
            found = self._score(tier, query, texts, chosen, inputs[tier], deadline, claim)
            stage_ms[tier] = 1000 * (self._clock() - started)
            rows[tier], known[tier] = found.rows, found.known
            tokens += found.tokens
            truncated = max(truncated, found.truncated)
            if len(rows[tier]) < wanted:
                reasons.append(f"{tier} scored {len(rows[tier])} of {wanted} inside the budget")
        final = cascade(self._calibration, inputs, rows["compact"], rows["large"])
        scores = probability(final.logits)
        order = sorted(range(count), key=lambda row: (-final.logits[row], ids[row]))
        items = [
            Ranked(
                index=row,
                passage_id=None if passage_ids is None else passage_ids[row],
                score=float(scores[row]),
                logit=float(final.logits[row]),
                tier="cached" if row in known[final.tiers[row]] else final.tiers[row],
                dense_score=float(inputs["dense"][row]),
                lexical_score=float(inputs["lexical"][row]),
                scored_by=final.tiers[row],
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
        claim: Claim,
    ) -> _TierScores:
        """Score `rows`, best first, while the deadline holds, into `logits`."""
        keys = [pair_key(query, texts[int(row)]) for row in rows] if self._cache is not None else []
        known = self._known(tier, rows, keys, logits, deadline)
        place_of = {int(row): place for place, row in enumerate(rows)}
        fresh = np.array([int(row) for row in rows if int(row) not in known], dtype=np.int64)
        parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], Future[Scores]]] = []
        for start in range(0, len(fresh), _ENCODED_TOGETHER):
            if claim.withdrawn or self._clock() >= deadline:
                claim.cut = True
                break
            part = fresh[start : start + _ENCODED_TOGETHER]
            encoded = self._batcher.encode(tier, [(query, texts[int(row)]) for row in part])
            sizes = np.array([len(encoding) for encoding in encoded])
            cut = np.array([encoding.cut for encoding in encoded])
            parts.append((part, sizes, cut, self._batcher.score(tier, encoded, deadline, claim)))
        done, tokens, truncated = [np.array(sorted(known), dtype=np.int64)], 0, sum(known.values())
        learned: dict[bytes, KnownScore] = {}
        for part, sizes, cut, future in parts:
            found = future.result()
            scored = part[found.scored]
            logits[scored] = found.logits[found.scored]
            done.append(scored)
            tokens += int(sizes[found.scored].sum())
            truncated += int(cut[found.scored].sum())
            if self._cache is not None:
                for row, was_cut in zip(scored.tolist(), cut[found.scored].tolist(), strict=True):
                    learned[keys[place_of[row]]] = KnownScore(float(logits[row]), was_cut)
        if self._cache is not None and learned:
            self._cache.put(self._models[tier], learned)
        return _TierScores(np.concatenate(done), set(known), tokens, truncated)

    def _known(
        self,
        tier: str,
        rows: NDArray[np.int64],
        keys: Sequence[bytes],
        logits: NDArray[np.float64],
        deadline: float,
    ) -> dict[int, bool]:
        """Rows whose score is known, with whether their text was cut; the scores go into `logits`."""
        if self._cache is None or not keys:
            return {}
        late = self._clock() >= deadline
        found: dict[int, bool] = {}
        for row, known in zip(rows.tolist(), self._cache.get(self._models[tier], keys, at_once=late), strict=True):
            if known is not None:
                logits[row], found[row] = known.logit, known.cut
        return found
