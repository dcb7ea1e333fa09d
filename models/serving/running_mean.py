"""Estimates that follow the machine: exponentially weighted means, and the constants of all of them."""

from __future__ import annotations

TOKEN_COST_WEIGHT = 0.2
"""Weight of the newest batch in the time per token (`models.serving.batching.CostModel`)."""
DECAY_AFTER_SKIP = 0.9
"""Factor on an estimate after it alone caused work to be skipped, so that a too pessimistic one recovers: what is
skipped is not measured."""
ENCODING_WEIGHT = 0.2
"""Weight of the newest batch in the time of embedding a text (`models.serving.loaded_bundle`)."""

USAGE_WEIGHT = 0.05
"""Weight of the newest request in the share of predicted time that requests take (`services.usage.Usage`)."""
GROWTH_WHEN_UNFINISHED = 1.25
"""Factor on that share for a request that was not scored to its end, which would have taken more than it spent."""
LEAST_USAGE = 0.02
"""Smallest such share: requests whose scores were all known must not admit the next ones for nothing."""

FALLBACK_JOB_WEIGHT = 0.1
"""Weight of the newest job in the time of a job of the fallback lane (`services.lanes`)."""


class RunningMean:
    """A mean in which each measurement counts `weight`, and what was before it 1 - `weight`. Not locked."""

    __slots__ = ("_weight", "value")

    def __init__(self, value: float, weight: float) -> None:
        self.value = value
        self._weight = weight

    def observe(self, measurement: float) -> None:
        """Move the mean towards a measurement."""
        self.value += self._weight * (measurement - self.value)

    def lower(self) -> None:
        """Expect a little less: an estimate that lets nothing run is never measured again."""
        self.value *= DECAY_AFTER_SKIP
