"""Early exits: which candidates the next model is worth its time on.

A proximity threshold (Cambazoglu et al., WSDM 2010) for a cascade of rankers (Wang, Lin and Metzler, SIGIR 2011):
behind each tier only candidates whose combined logit is within a window of the best go on. Where the best one stands
alone in its window the query is easy, and no further model is asked. A tier that does not earn its time is skipped:
the large model may follow the first stage at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.contracts.tiers import MODEL_TIERS, TierSpec

_APART = 1e-6
"""Logits between a tier and the one above it, where they would overlap."""


@dataclass(frozen=True)
class EarlyExit:
    """Which models are asked, and how far behind the best a candidate of theirs may be.

    Attributes:
        windows: By model tier, in combined logits of the tier asked before it. A tier that is left out has no limit.
        skipped: Model tiers that are not asked, those that the release does not have among them; all where no model
            pays, and what serves is `lean` alone.
    """

    windows: Mapping[str, float] = field(default_factory=dict[str, float])
    skipped: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        limits = {name: float(window) for name, window in self.windows.items() if window < inf}
        object.__setattr__(self, "windows", limits)

    def asked(self, tiers: Sequence[TierSpec] = MODEL_TIERS) -> tuple[TierSpec, ...]:
        """Those of `tiers` that are asked, in their order."""
        return tuple(tier for tier in tiers if tier.name not in self.skipped)

    @classmethod
    def of(cls, models: Sequence[TierSpec]) -> EarlyExit:
        """These models are asked, without limits."""
        return cls(skipped=frozenset(tier.name for tier in MODEL_TIERS if tier not in models))

    @classmethod
    def lean_alone(cls) -> EarlyExit:
        """No model is asked."""
        return cls.of(())

    def window(self, tier: TierSpec) -> float:
        """Logits that a candidate of `tier` may be behind the best one; infinite without a limit."""
        return self.windows.get(tier.name, inf)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"windows": dict(self.windows), "skipped": sorted(self.skipped)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EarlyExit:
        """Read what `to_dict` wrote."""
        return cls(values["windows"], frozenset(values["skipped"]))


def enforce_tier_order(logits: NDArray[np.float64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logits [n] with those of each level [n] below all of the levels above it (higher numbers).

    Where the best of a level is not, the whole level is lowered by the same, so that its order stays.
    """
    ordered, floor = logits.copy(), inf
    for level in range(int(levels.max(initial=-1)), -1, -1):
        rows = levels == level
        if not rows.any():
            continue
        over = float(ordered[rows].max()) - floor
        if over >= 0:
            ordered[rows] -= over + _APART
        floor = float(ordered[rows].min())
    return ordered


def within_window(descending: NDArray[np.float64], most: int, window: float) -> int:
    """How many of the best go on: at most `most`, those within `window` of the first of `descending` [n] logits.

    None where the first stands alone in its window: one more opinion on it would not change the order.
    """
    best = descending[:most]
    if window == inf or not len(best):
        return len(best)
    count = int(np.count_nonzero(best >= best[0] - window))
    return count if count > 1 else 0
