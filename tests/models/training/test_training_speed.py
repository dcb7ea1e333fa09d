"""Pairs that fit into a budget of minutes."""

from __future__ import annotations

import time

import pytest

from models.errors import SettingsError
from models.settings import Settings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.training.training_speed import pairs_within
from tests.deployments import write_artifact
from tests.tiny_cross_encoder import examples, tiny_settings, write_base

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    folder = tmp_path_factory.mktemp("speed")
    return ArtifactStore(str(folder / "artifacts"), folder / "cache")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    base = write_base(tmp_path_factory.mktemp("base"))
    training = tiny_settings(base, negatives=2, large_pairs=10**9, compact_pairs=10**9 // 2)
    return Settings(training=training, tiers=TiersSettings(models=["compact", "large"]))


@pytest.fixture(scope="module")
def mixture(store: ArtifactStore) -> Artifact:
    return write_artifact(store, "training/mixture", {"training_examples.parquet": examples(100)})


def test_both_numbers_are_cut_alike_and_a_second_call_gives_the_same(
    store: ArtifactStore, settings: Settings, mixture: Artifact
) -> None:
    pairs = pairs_within(store, settings, mixture, 1.0)
    assert pairs["large_pairs"] == pytest.approx(2 * pairs["compact_pairs"], abs=2)
    assert 100 < pairs["large_pairs"] < 10**8
    started = time.monotonic()
    assert pairs_within(store, settings, mixture, 1.0) == pairs
    assert time.monotonic() - started < 1, "measured once"
    double = pairs_within(store, settings, mixture, 2.0)
    assert double["large_pairs"] == pytest.approx(2 * pairs["large_pairs"], abs=2)


def test_time_for_more_than_is_asked_for_and_no_budget_change_nothing(
    store: ArtifactStore, settings: Settings, mixture: Artifact
) -> None:
    few = settings.model_copy(
        update={"training": settings.training.model_copy(update={"large_pairs": 60, "compact_pairs": 30})}
    )
    assert pairs_within(store, few, mixture, 600.0) == {"large_pairs": 60, "compact_pairs": 30}
    assert pairs_within(store, few, mixture, 0.0) == {"large_pairs": 60, "compact_pairs": 30}
    alone = few.model_copy(update={"tiers": TiersSettings(models=["large"])})
    assert pairs_within(store, alone, mixture, 600.0) == {"large_pairs": 60}


def test_no_time_for_a_step_is_refused(store: ArtifactStore, settings: Settings, mixture: Artifact) -> None:
    with pytest.raises(SettingsError, match=r"pretraining\.minutes"):
        pairs_within(store, settings, mixture, 1e-6)
