"""What is learned from requests that took less than was predicted."""

from __future__ import annotations

import pytest

from models.serving.batching import Claim
from services.usage import Usage


def ended(spent_ms: float, *, cut: bool = False, withdrawn: bool = False) -> Claim:
    claim = Claim(100.0)
    claim.spend(spent_ms)
    claim.cut, claim.withdrawn = cut, withdrawn
    return claim


def test_it_settles_at_what_requests_take() -> None:
    usage = Usage()
    assert usage.share == 1
    for index in range(400):
        usage.observe(100.0, ended(10.0 if index % 2 else 30.0))
    assert usage.share == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("how", [{"cut": True}, {"withdrawn": True}])
def test_requests_that_were_cut_short_make_it_cautious_again(how: dict[str, bool]) -> None:
    usage = Usage()
    for _ in range(400):
        usage.observe(100.0, ended(10.0))
    for _ in range(400):
        usage.observe(100.0, ended(0.0, **how))
    assert usage.share == 1


def test_a_request_without_predicted_work_teaches_nothing() -> None:
    usage = Usage()
    usage.observe(0.0, ended(50.0))
    assert usage.share == 1


def test_known_scores_leave_a_little_to_be_expected() -> None:
    usage = Usage()
    for _ in range(1000):
        usage.observe(100.0, ended(0.0))
    assert 0 < usage.share < 0.05
