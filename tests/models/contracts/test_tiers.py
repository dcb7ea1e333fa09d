"""The list of tiers, and what the settings have for each of them."""

from __future__ import annotations

import pytest

from models.contracts.tiers import DISTILLED_TIERS, LAST, LEAN, MODEL_TIERS, TIER_NAMES, candidate_limits
from models.errors import SettingsError
from models.settings import Settings, setting_keys


def test_each_name_is_in_the_contract_and_only_the_last_model_has_no_teacher() -> None:
    assert {"cached", LEAN.name, *(tier.name for tier in MODEL_TIERS)} == set(TIER_NAMES)
    assert (*DISTILLED_TIERS, LAST) == MODEL_TIERS


def test_the_settings_have_the_keys_of_each_tier_and_of_no_other() -> None:
    keys = {key for key, _ in setting_keys()}
    assert {tier.candidates_setting for tier in MODEL_TIERS} == {key for key in keys if key.endswith("_candidates")}
    assert {key for tier in DISTILLED_TIERS for key in tier.student_settings} <= keys
    assert set(Settings().training.students) == {tier.name for tier in DISTILLED_TIERS}
    tiers = Settings().tiers.model_copy(update={f"{tier.name}_candidates": 3 for tier in MODEL_TIERS})
    assert candidate_limits(tiers) == dict.fromkeys((tier.name for tier in MODEL_TIERS), 3)
    with pytest.raises(SettingsError, match="auto"):
        candidate_limits(Settings().tiers)


def test_a_student_has_what_is_set_for_its_tier() -> None:
    training = Settings().training.model_copy(update={"compact_layers": [1, 2], "compact_pairs": 7})
    assert training.students["compact"] == ("compact", [1, 2], "", 7)
