"""Which candidates the next model is worth its time on: those that are close enough to the best.

A proximity threshold (early exits: Cambazoglu et al., WSDM 2010) for a cascade of rankers (Wang, Lin and Metzler, SIGIR
2011): behind each tier only candidates whose combined logit is within a window of the best go on. Where the best one
stands alone in its window the query is easy, and the next model is not asked at all. A tier that does not earn its time
is left out: the large model may follow the first stage at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

_APART = 1e-6
"""Logits between a tier and the one above it, where they would overlap."""


@dataclass(frozen=True)
class Stopping:
    """How far behind the best, in combined logits of the tier before it, a candidate of each model may be."""

    compact: float = inf
    large: float = inf
    through_compact: bool = True
    """Whether the large model is asked about what the compact one has scored. If not, the compact one is not asked, and
    the tier before the large model is the first stage."""

    def to_dict(self) -> dict[str, float | bool | None]:
        """JSON values; null is no limit."""
        return {name: None if value == inf else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stopping:
        """Read what `to_dict` wrote; what an older version did not write has its default."""
        windows = {name: values.get(name) for name in ("compact", "large")}
        return cls(
            **{name: inf if value is None else float(value) for name, value in windows.items()},
            through_compact=bool(values.get("through_compact", True)),
        )


def in_turn(logits: NDArray[np.float64], tiers: Sequence[str]) -> NDArray[np.float64]:
    """The logits [n] with those of each tier below all of the tiers above it.

    Where the best of a tier is not, the whole tier is lowered by the same, so that its order stays.
    """
    of, floor, ordered = np.array(tiers), inf, logits.copy()
    for tier in ("large", "compact", "lean"):
        rows = of == tier
        if not rows.any():
            continue
        over = float(ordered[rows].max()) - floor
        if over >= 0:
            ordered[rows] -= over + _APART
        floor = float(ordered[rows].min())
    return ordered


def best_rows(logits: NDArray[np.float64], ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """Rows of the `count` highest logits, best first; ties by id."""
    order = sorted(range(len(logits)), key=lambda row: (-logits[row], ids[row]))
    return np.array(order[:count], dtype=np.int64)


def contenders(logits: NDArray[np.float64], ids: Sequence[str], most: int, window: float) -> NDArray[np.int64]:
    """Rows of the at most `most` candidates within `window` of the best logit, best first, ties by id.

    None where the best stands alone: one more opinion on it would not change the order.
    """
    rows = best_rows(logits, ids, most)
    if window == inf or not len(rows):
        return rows
    near = rows[logits[rows] >= logits[rows[0]] - window]
    return near if len(near) > 1 else near[:0]
