"""How tests wait for a thread, a process or a server."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 900.0
"""A bound on deadlocks, which no busy machine reaches."""


def until(met: Callable[[], bool]) -> None:
    """Wait for what comes by itself; the test's own time limit ends a wait in vain."""
    while not met():
        time.sleep(0.01)  # nothing tells when another process or thread is ready
