"""How much of their predicted work requests really take.

A prediction is an upper bound: it counts every pair that the settings allow, while known scores and candidates far from
the best (`models.stopping`) are not scored. Admission by the bound alone would leave most of the models' time unused.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.batching import Claim

_FRESH_SHARE = 0.05
_LEAST = 0.02
_DOUBT = 1.25


class Usage:
    """A running mean of spent over predicted milliseconds. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.share = 1.0

    def observe(self, predicted_ms: float, claim: Claim) -> None:
        """Learn from a request that ended. One that was not scored to its end would have taken more than it spent."""
        if predicted_ms <= 0:
            return
        with self._lock:
            used = claim.spent_ms / predicted_ms
            if claim.cut or claim.withdrawn:
                used = max(used, _DOUBT * self.share)
            self.share += _FRESH_SHARE * (used - self.share)
            self.share = min(1.0, max(_LEAST, self.share))
