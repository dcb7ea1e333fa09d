"""A few broken inputs for each source; `python -m bench.fuzz_sources` reads 1,000 of each."""

from __future__ import annotations

import pytest

from bench.fuzz_sources import cases, fuzz

pytestmark = pytest.mark.heavy
INPUTS = 30
CASES = cases(files=15)


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_accepted_or_quarantined_or_the_whole_reading_is_a_source_error(name: str) -> None:
    readings = fuzz(CASES[name], INPUTS)
    assert len(readings) * CASES[name].files >= INPUTS
    assert not [reading.unexpected for reading in readings if reading.unexpected]
    assert not [reading for reading in readings if reading.lost]
    assert sum(reading.accepted for reading in readings) > 0
    assert name in ("python-docs", "man-pages") or sum(reading.counted for reading in readings) > 0
