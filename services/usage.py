"""How much of their predicted work requests really take.

A prediction is an upper bound: it counts every pair that the settings allow, while known scores and candidates far from
the best (`models.cascade.windows`) are not scored. Admission by the bound alone would leave most of the models' time
unused.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from models.serving.running_mean import GROWTH_WHEN_UNFINISHED, LEAST_USAGE, USAGE_WEIGHT, RunningMean

if TYPE_CHECKING:
    from models.serving.batching import Claim


class Usage:
    """A running mean of spent over predicted milliseconds. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._share = RunningMean(1.0, USAGE_WEIGHT)

    @property
    def share(self) -> float:
        """Of its predicted time, what a request takes: above 0 and at most 1."""
        return self._share.value

    def observe(self, predicted_ms: float, claim: Claim) -> None:
        """Learn from a request that ended. One that was not scored to its end would have taken more than it spent."""
        if predicted_ms <= 0:
            return
        with self._lock:
            used = claim.spent_ms / predicted_ms
            if claim.cut or claim.withdrawn:
                used = max(used, GROWTH_WHEN_UNFINISHED * self.share)
            self._share.observe(used)
            self._share.value = min(1.0, max(LEAST_USAGE, self.share))
