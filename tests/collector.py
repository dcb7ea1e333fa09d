"""The collector of garbage, told that a million objects of loaded libraries live to the end.

Looking at them over and over took a fifth of the time of the tests, more where a library asks for it, as every trainer
does.
"""

from __future__ import annotations

import gc
import sys

_MODULES = 300
"""Modules loaded anew from which it pays to set all objects apart once more."""

_frozen = 0
"""Modules that were loaded the last time."""

gc.set_threshold(50_000, 20, 50)


def pytest_runtest_teardown() -> None:
    """Set apart what the test has loaded."""
    global _frozen
    if len(sys.modules) > _frozen + _MODULES:
        gc.collect()
        gc.freeze()
        _frozen = len(sys.modules)
