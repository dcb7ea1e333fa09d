"""The tiers in service: first-stage scores for all candidates, then one model after the other for the best of them.

A time budget decides how far down each model goes: before a batch is scored its time is predicted by a cost model
measured at load, and when the budget would not hold, the rest keeps the score of the tier before and the ranking says
so. The pairs of all requests are scored together (`models.serving.batching`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cascade.calibration import Calibration, probability
from models.cascade.cascade import CombinedScores, Standing, final_scores, walk
from models.cascade.windows import EarlyExit
from models.contracts.tiers import LEAN, TierSpec, candidate_limits
from models.serving.batching import Batcher, Claim
from models.serving.protocol import Ranked, Ranking
from models.serving.score_cache import KnownScore, ScoreCache, pair_key
from models.settings import TiersSettings

_ENCODED_TOGETHER = 64
"""Pairs; while those are scored, the next are encoded, unless the budget is spent."""
_CHARACTERS_TOGETHER = 100_000
"""Of their passages, but for one alone: some 50 ms of work, behind which the budget is looked at."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What of a request the scoring of its pairs depends on; `deadline` is in seconds of the batcher's clock."""

    query: str
    texts: Sequence[str]
    deadline: float
    claim: Claim

    def pairs(self, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
        return [(self.query, self.texts[int(row)]) for row in rows]

    def parts(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Rows that are encoded together."""
        start = characters = 0
        for end, row in enumerate(rows.tolist()):
            characters += len(self.texts[row])
            if end > start and (end - start == _ENCODED_TOGETHER or characters > _CHARACTERS_TOGETHER):
                yield rows[start:end]
                start, characters = end, len(self.texts[row])
        if start < len(rows):
            yield rows[start:]


@dataclass(frozen=True, slots=True)
class _TierScores:
    """Rows [m] that have a model's logit; those of them whose logit was cached; pairs that the model failed at; tokens
    read; texts cut."""

    rows: NDArray[np.int64]
    cached: Collection[int]
    failed: int
    tokens: int
    truncated: int


class TieredReranker:
    """Ranks the texts of one request inside its budget; any number of threads may call it.

    Args:
        batcher: Runs the models, named as their tiers.
        calibration: How each tier combines scores, and which candidates each model is asked about.
        settings: Candidates of each model, and the part of a budget that is kept for everything but scoring.
        cache: Scores that are known; without one, every pair is computed.
        models: The model of each tier in the cache (`models.serving.score_cache.model_prefix`).
    """

    def __init__(
        self,
        batcher: Batcher,
        calibration: Calibration,
        settings: TiersSettings,
        cache: ScoreCache | None = None,
        models: Mapping[str, bytes] | None = None,
    ) -> None:
        self._batcher = batcher
        self._calibration = calibration
        self._reserve_ms = settings.reserve_ms
        self._limits = candidate_limits(settings)
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
        retriever: NDArray[np.floating],
        budget_ms: float,
        passage_ids: Sequence[str | None] | None = None,
        claim: Claim | None = None,
        every_pair: bool = False,
    ) -> Ranking:
        """Rank texts of one query, best first.

        Known scores take the place of the model's at any budget: what is ranked and how does not depend on them, but
        for the time.

        Args:
            query: What the texts are ranked for.
            texts: [n] texts; with none the ranking is empty.
            ids: [n] ids, which break ties.
            dense: [n] cosines of query and texts, from the first stage.
            lexical: [n] BM25 scores of the texts, from the first stage.
            retriever: [n] scores by which the first stage orders the texts.
            budget_ms: Milliseconds that may be spent, `tiers.reserve_ms` included; with 0 no model is asked.
            passage_ids: [n] ids of the passages that the texts are, for the answer alone; None for other texts.
            claim: What the request still claims of the models; withdrawn, nothing more is scored for it.
            every_pair: Ask the models about all texts, whatever the settings limit and wherever an exit would be early.

        Returns:
            All n texts. `degraded` says that a model did not get as far as the settings ask, `degraded_reason` how far.

        Example:
            ranking = reranker.rank("reset a password", texts, ids, cosines, bm25, first_stage_scores, budget_ms=500)
            best = texts[ranking.items[0].index]
        """
        if not texts:
            return Ranking([])
        request = _Request(query, texts, self._clock() + (budget_ms - self._reserve_ms) / 1000, claim or Claim())
        inputs = {
            "dense": np.asarray(dense, dtype=np.float64),
            "lexical": np.asarray(lexical, dtype=np.float64),
            "retriever": np.asarray(retriever, dtype=np.float64),
            **{tier.name: np.zeros(len(texts)) for tier in self._calibration.models},
        }
        scores = CombinedScores(self._calibration, inputs, ids)
        stage_ms = {tier.name: 0.0 for tier in self._calibration.models}
        cached: dict[str, Collection[int]] = {LEAN.name: ()}
        reasons: list[str] = []
        tokens = truncated = 0

        def ask(tier: TierSpec, rows: NDArray[np.int64]) -> Standing:
            nonlocal tokens, truncated
            started = self._clock()
            part = self._score(tier.name, request, rows, inputs[tier.name])
            stage_ms[tier.name] = 1000 * (self._clock() - started)
            cached[tier.name] = part.cached
            tokens += part.tokens
            truncated = max(truncated, part.truncated)
            if part.failed:
                reasons.insert(0, f"fault: {tier.name} has no score for {part.failed} of {len(rows)}")
            if len(part.rows) + part.failed < len(rows):
                reasons.append(f"{tier.name} scored {len(part.rows)} of {len(rows)} inside the budget")
            return scores.standing(tier, part.rows)

        early_exit, limits = self._calibration.early_exit, self._limits
        if every_pair:
            early_exit, limits = EarlyExit(skipped=early_exit.skipped), dict.fromkeys(limits, len(texts))
        final = final_scores(walk(scores.first(), early_exit, limits, ask))
        probabilities = probability(final.logits)
        items = [
            Ranked(
                index=row,
                passage_id=None if passage_ids is None else passage_ids[row],
                score=float(probabilities[row]),
                logit=float(final.logits[row]),
                tier="cached" if row in cached[final.tiers[row]] else final.tiers[row],
                dense_score=float(inputs["dense"][row]),
                lexical_score=float(inputs["lexical"][row]),
                scored_by=final.tiers[row],
            )
            for row in scores.order(final).tolist()
        ]
        return Ranking(items, bool(reasons), "; ".join(reasons), stage_ms, truncated, tokens)

    def _score(self, tier: str, request: _Request, rows: NDArray[np.int64], logits: NDArray[np.float64]) -> _TierScores:
        """Score `rows`, best first, while the deadline holds, into `logits`."""
        keys = [pair_key(*pair) for pair in request.pairs(rows)] if self._cache is not None else []
        cached = self._cached(tier, rows, keys, logits, request.deadline)
        fresh = rows if not cached else np.array([row for row in rows.tolist() if row not in cached], dtype=np.int64)
        waiting = []
        for part in request.parts(fresh):
            if request.claim.withdrawn or self._clock() >= request.deadline:
                request.claim.cut = True
                break
            encoded = self._batcher.encode(tier, request.pairs(part))
            sizes = np.array([len(encoding) for encoding in encoded])
            cut = np.array([encoding.cut for encoding in encoded])
            future = self._batcher.score(tier, encoded, request.deadline, request.claim)
            waiting.append((part, sizes, cut, future))
        scored, failed = [np.array(sorted(cached), dtype=np.int64)], 0
        tokens, truncated = 0, sum(cached.values())
        computed: dict[int, KnownScore] = {}
        for part, sizes, cut, future in waiting:
            scores = future.result()
            rows_scored, cut_scored = part[scores.scored], cut[scores.scored]
            logits[rows_scored] = scores.logits[scores.scored]
            scored.append(rows_scored)
            failed += int(scores.failed.sum())
            tokens += int(sizes[scores.scored].sum())
            truncated += int(cut_scored.sum())
            for row, was_cut in zip(rows_scored.tolist(), cut_scored.tolist(), strict=True):
                computed[row] = KnownScore(float(logits[row]), was_cut)
        if self._cache is not None and computed:
            key_of = dict(zip(rows.tolist(), keys, strict=True))
            self._cache.put(self._models[tier], {key_of[row]: score for row, score in computed.items()})
        return _TierScores(np.concatenate(scored), cached.keys(), failed, tokens, truncated)

    def _cached(
        self,
        tier: str,
        rows: NDArray[np.int64],
        keys: Sequence[bytes],
        logits: NDArray[np.float64],
        deadline: float,
    ) -> dict[int, bool]:
        """Rows whose score is in the cache, with whether their text was cut; the scores go into `logits`."""
        if self._cache is None or not keys:
            return {}
        late = self._clock() >= deadline
        cached: dict[int, bool] = {}
        for row, score in zip(rows.tolist(), self._cache.get(self._models[tier], keys, at_once=late), strict=True):
            if score is not None:
                logits[row], cached[row] = score.logit, score.cut
        return cached
