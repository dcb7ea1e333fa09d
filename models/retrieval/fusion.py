"""How the passages that both searches bring are ordered: by reciprocal ranks, or by weights of their scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from models.cascade.listwise import feature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ranking = tuple[NDArray[np.int64], NDArray[np.float32]]
    """Ids and scores, best first."""

FIRST_STAGE_FILE = "first_stage.json"

Method = Literal["rrf", "learned", "dense", "bm25"]
"""Reciprocal rank fusion; weights fitted on judged queries; or the score of one search alone."""

_TIE_BREAK = 1e-6
"""Weight of the other search's score where one decides alone: it orders what that one cannot tell apart."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The order of a query's passages before any model: served, evaluated and stored as this one object.

    Without `weights` a passage is scored by its places in the two rankings (`reciprocal_rank_fusion`); with them by the
    weighted sum of the features that they name (`models.cascade.listwise.feature`), whichever search
    brought it.
    """

    method: Method = "rrf"
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    rrf_k: int = 60

    @classmethod
    def alone(cls, search: Literal["dense", "bm25"]) -> FirstStage:
        """One search decides; the other one's score breaks its ties."""
        if search == "dense":
            return cls("dense", {"dense": 1.0, "lexical_log": _TIE_BREAK})
        return cls("bm25", {"lexical": 1.0, "dense": _TIE_BREAK})

    def scores(
        self, rankings: Sequence[NDArray[np.int64]], dense: NDArray[np.floating], lexical: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Scores [n] of the ids that the `rankings` hold, in ascending order of id; higher is better.

        `dense` [n] are their cosines and `lexical` [n] their BM25 scores. Each ranking holds an id once.
        """
        if not self.weights:
            ids, fused = reciprocal_rank_fusion(rankings, self.rrf_k)
            return fused[np.argsort(ids)]
        inputs = {"dense": dense, "lexical": lexical}
        features = np.stack([feature(name, inputs) for name in self.weights], axis=1)
        return features @ np.array(list(self.weights.values()))

    def scores_of_texts(self, dense: NDArray[np.floating], lexical: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores [n] of a caller's own texts, which no search has ranked: they are ranked among each other."""
        by_words = np.argsort(-lexical, kind="stable")
        rankings = [np.argsort(-dense, kind="stable"), by_words[lexical[by_words] > 0]]
        return self.scores(rankings, dense, lexical)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FirstStage:
        """Read what `to_dict` wrote."""
        return cls(**values)


def read_first_stage(folder: Path) -> FirstStage | None:
    """The first stage stored in a folder; None where there is none, as in bundles from before there was a choice."""
    path = folder / FIRST_STAGE_FILE
    return FirstStage.from_dict(json.loads(path.read_bytes())["first_stage"]) if path.exists() else None


def reciprocal_rank_fusion(
    rankings: Sequence[NDArray[np.int64]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids and scores, best first: the score is the sum over the rankings of 1 / (k + rank), rank counted from 1.

    Cormack, Clarke and Büttcher (SIGIR 2009). Each ranking holds an id once; equal scores are ordered by id; the order
    of the rankings does not matter.
    """
    ids = np.concatenate([np.empty(0, dtype=np.int64), *rankings])
    if not len(ids):
        return ids, np.empty(0, dtype=np.float64)
    shares = np.concatenate([1.0 / (k + np.arange(1, len(ranking) + 1)) for ranking in rankings])
    # Sorted by share within an id, so that the floating-point sum is the same for any order of the rankings.
    order = np.lexsort((shares, ids))
    unique, starts = np.unique(ids[order], return_index=True)
    scores = np.add.reduceat(shares[order], starts)
    best_first = np.lexsort((unique, -scores))
    return unique[best_first], scores[best_first]
