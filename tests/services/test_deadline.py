"""The time budget of a request."""

from __future__ import annotations

import pytest

from services.deadline import Deadline


def test_a_budget_is_spent_from_the_start_and_never_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("services.deadline.time.monotonic", lambda: now)
    deadline = Deadline(200.0)
    assert (deadline.elapsed_ms, deadline.remaining_ms, deadline.at) == (0.0, 200.0, 50.2)
    assert Deadline(200.0, arrived=49.9).remaining_ms == pytest.approx(100.0)
    now = 50.125
    assert (deadline.elapsed_ms, deadline.remaining_ms) == (125.0, 75.0)
    now = 51.0
    assert (deadline.elapsed_ms, deadline.remaining_ms) == (1000.0, 0.0)
