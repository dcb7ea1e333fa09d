"""The first requests of a bundle are the service's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ReleaseError
from models.serving.loaded_bundle import LoadedBundle
from models.serving.protocol import Ranking, ServedVersions
from services.warm_up import warm_up
from tests.services.scripted_bundle import ScriptedBundle, in_given_order
from tests.small_bundle import Small, small_settings


def test_every_path_of_a_real_bundle_is_run_and_timed(loaded: LoadedBundle, small: Small) -> None:
    measured = warm_up(loaded, small.settings)
    assert set(measured) == {"retrieve", "rank_candidates", "rank_documents"}
    assert all(milliseconds > 0 for milliseconds in measured.values())


def test_a_bundle_that_cannot_do_without_time_is_refused(tmp_path: Path) -> None:
    class Hurried(ScriptedBundle):
        def rank_documents(
            self, query: str, documents: object, budget_ms: float, claim: object = None, reading: object = None
        ) -> Ranking:
            return in_given_order(1 if budget_ms else 0)

    with pytest.raises(ReleaseError, match="without time"):
        warm_up(Hurried(ServedVersions("r", "b", "1", "i", "c")), small_settings(tmp_path))
