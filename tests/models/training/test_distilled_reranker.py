"""A distilled reranker as an artifact: what it is made from decides whether it is trained anew."""

from __future__ import annotations

from pathlib import Path

from models.settings import Settings, TiersSettings
from models.store.artifacts import ArtifactStore
from models.training.distilled_reranker import LEFT_OUT, is_left_out, make_distilled_reranker
from models.training.large_reranker import make_large_reranker
from tests.deployments import write_artifact
from tests.tiny_cross_encoder import examples, tiny_settings, write_base


def test_it_is_trained_on_the_logged_lists_and_anew_when_they_change(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    training = tiny_settings(write_base(tmp_path / "base"))
    settings = Settings(training=training, tiers=TiersSettings(models=["compact", "large"]))
    store = ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")
    mined = write_artifact(
        store,
        "training/training_examples",
        {"training_examples.parquet": examples(8), "development_lists.parquet": examples(2)},
    )
    large = make_large_reranker(store, settings, mined)
    logged = examples(3).loc[:, ["query_id", "query", "passage_id", "passage"]]
    without, with_lists = (
        write_artifact(store, "training/logged_lists", {"logged_lists.parquet": table})
        for table in (logged.head(0), logged)
    )
    trained = make_distilled_reranker(store, settings, "compact", mined, large, without)
    assert (trained.summary["lists"], trained.reused) == (8, False)
    distilled = make_distilled_reranker(store, settings, "compact", mined, large, with_lists)
    assert (distilled.summary["lists"], distilled.reused) == (11, False)
    assert distilled.manifest.inputs[with_lists.asset] == with_lists.data_version
    assert make_distilled_reranker(store, settings, "compact", mined, large, with_lists).reused

    # Where releases have no such model nothing is trained, whatever the lists are.
    alone = Settings(training=training)
    left_out = make_distilled_reranker(store, alone, "compact", mined, large, with_lists)
    assert is_left_out(left_out)
    assert not is_left_out(distilled)
    assert set(left_out.manifest.files) == {LEFT_OUT}
    assert make_distilled_reranker(store, alone, "compact", mined, large, without).data_version == left_out.data_version
