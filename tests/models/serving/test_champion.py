"""The champion on the current evaluation set, as it serves."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from models.errors import ArtifactError
from models.records.ledger import Ledger
from models.serving.champion import evaluate_champion, make_champion_evaluation
from models.serving.latency_profile import make_latency_profile, profile_bundle
from tests.models.serving.test_loaded_bundle import copied
from tests.small_bundle import Small, put_in_service


def test_before_the_first_champion_there_is_nothing_to_compare_with(
    small: Small, ledger: Ledger, tmp_path: Path
) -> None:
    evaluation_set = small.artifacts["corpus/evaluation_set"]

    artifact = make_champion_evaluation(small.store, small.settings, ledger.current(), evaluation_set)

    assert artifact.read_json("champion.json") == {"champion": None}
    assert set(artifact.manifest.files) == {"champion.json"}
    assert evaluate_champion(None, None, tmp_path) == {"champion": "none"}


def test_the_champion_is_judged_by_its_own_answers(small: Small, ledger: Ledger) -> None:
    champion = put_in_service(ledger, small.first, "1")
    evaluation_set = small.artifacts["corpus/evaluation_set"]

    artifact = make_champion_evaluation(small.store, small.settings, champion, evaluation_set)

    assert artifact.read_json("champion.json") == {"champion": champion.bundle_version}
    # By its own indexes: nothing that was made for a candidate goes in.
    assert {name for name in artifact.manifest.inputs if "/" in name} == {"corpus/evaluation_set"}
    profile = make_latency_profile(small.store, small.settings, small.first.bundle, evaluation_set)
    assert profile.reused, "what it answered as a candidate under the same code and budget is taken again"
    pd.testing.assert_frame_equal(artifact.read_table("per_query.parquet"), profile.read_table("per_query.parquet"))


def test_the_champion_answers_again_under_other_code(
    small: Small, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.serving import steps

    champion = put_in_service(ledger, small.first, "1")
    evaluation_set = small.artifacts["corpus/evaluation_set"]
    # Which answers are given again is the same in a budget that leaves the models no time.
    tiers = small.settings.tiers.model_copy(update={"budget_ms": 101.0, "reserve_ms": 100.9})
    hurried = small.settings.model_copy(update={"tiers": tiers})
    before = make_champion_evaluation(small.store, hurried, champion, evaluation_set)

    # `cached_property` keeps its value in the instance: this is the version that an edit would give.
    monkeypatch.setitem(vars(steps.LATENCY_PROFILE), "code_version", "edited")
    after = make_champion_evaluation(small.store, hurried, champion, evaluation_set)

    assert not after.reused or after.manifest.inputs["profile"] != before.manifest.inputs["profile"]
    codes = {made.manifest.code_version for made in small.store.made("evaluation/latency_profile")}
    assert "edited" in codes


def test_a_champion_whose_files_changed_is_not_judged(small: Small, tmp_path: Path) -> None:
    bundle = copied(small.first.bundle, tmp_path / "bundle", own="calibration.json")
    path = tmp_path / "bundle" / "calibration.json"
    path.write_bytes(path.read_bytes().replace(b"lean", b"leam", 1))
    (tmp_path / "out").mkdir()

    with pytest.raises(ArtifactError, match=r"calibration\.json differs"):
        profile_bundle(bundle, small.artifacts["corpus/evaluation_set"], small.settings, tmp_path / "out")

    assert json.loads(path.read_bytes().replace(b"leam", b"lean", 1))
