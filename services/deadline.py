"""The time budget of one request."""

from __future__ import annotations

import time


class Deadline:
    """A budget that starts when the request arrives, so that waiting in the queue is paid from it.

    `arrived` is a time of `time.monotonic`, now when left out.
    """

    def __init__(self, budget_ms: float, arrived: float | None = None) -> None:
        self.budget_ms = budget_ms
        self._started = time.monotonic() if arrived is None else arrived

    @property
    def at(self) -> float:
        """When it ends (`time.monotonic`)."""
        return self._started + self.budget_ms / 1000

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.monotonic() - self._started) * 1000

    @property
    def remaining_ms(self) -> float:
        """Milliseconds left, never negative."""
        return max(0.0, self.budget_ms - self.elapsed_ms)
