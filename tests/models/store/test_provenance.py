"""One version of each artifact and one value of each setting behind a set of artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from models.store.artifacts import Artifact, ArtifactStore
from models.store.provenance import require_one_origin


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "root"), tmp_path / "cache")


def make(
    store: ArtifactStore,
    asset: str,
    content: str = "",
    inputs: tuple[Artifact, ...] = (),
    outside: Mapping[str, str] | None = None,
    **settings: Any,
) -> Artifact:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "content.txt").write_text(f"{asset} {content}")
        return {}

    return store.get_or_create(
        asset,
        code_version=content,
        inputs={**{item.asset: item.data_version for item in inputs}, **(outside or {})},
        settings={name.replace("__", "."): value for name, value in settings.items()},
        build=build,
    )


def test_the_settings_of_all_are_joined(store: ArtifactStore) -> None:
    large = make(store, "training/large", training__max_tokens=64, training__seed=1)
    scored = make(store, "evaluation/scored", inputs=(large,), training__max_tokens=64)
    assert require_one_origin((large, scored), {"tiers.large_candidates": 5, "training.max_tokens": 64}) == {
        "training.max_tokens": 64,
        "training.seed": 1,
        "tiers.large_candidates": 5,
    }


def test_an_artifact_made_from_another_version_is_named(store: ArtifactStore) -> None:
    old, new = make(store, "training/large", "old"), make(store, "training/large", "new")
    scored = make(store, "evaluation/scored", inputs=(old,))
    require_one_origin((old, scored))
    wanted = f"evaluation/scored was made from training/large {old.data_version}, the current one is {new.data_version}"
    with pytest.raises(ArtifactError, match=re.escape(wanted)):
        require_one_origin((new, scored))


def test_two_that_share_an_input_must_share_its_version(store: ArtifactStore) -> None:
    large = make(store, "training/large", inputs=(make(store, "training/examples", "old"),))
    compact = make(store, "training/compact", inputs=(make(store, "training/examples", "new"),))
    with pytest.raises(
        ArtifactError, match=r"training/compact was made from training/examples .* that of training/large"
    ):
        require_one_origin((large, compact))


def test_what_comes_from_outside_may_differ(store: ArtifactStore) -> None:
    embeddings = make(store, "index/embeddings", outside={"weights": "encoder"})
    large = make(store, "training/large", outside={"weights": "cross-encoder"})
    assert require_one_origin((embeddings, large)) == {}


def test_two_values_of_a_setting_are_named_with_who_has_them(store: ArtifactStore) -> None:
    large = make(store, "training/large", training__max_tokens=64)
    scored = make(store, "evaluation/scored", training__max_tokens=128)
    with pytest.raises(
        ArtifactError, match=r"training\.max_tokens: evaluation/scored was made with 128, training/large has 64"
    ):
        require_one_origin((large, scored))
    with pytest.raises(ArtifactError, match=r"training\.max_tokens: .*/large was made with 64, this run has 32"):
        require_one_origin((large,), {"training.max_tokens": 32})


def test_the_computation_counts_and_not_who_made_the_same_content_first(store: ArtifactStore) -> None:
    before = make(store, "corpus/judgments", "same", corpus__dev_share=0.1)
    after = make(store, "corpus/judgments", "same", corpus__dev_share=0.2)
    queries = make(store, "corpus/queries", "other", corpus__dev_share=0.2)
    assert before.data_version == after.data_version
    assert require_one_origin((after, queries)) == {"corpus.dev_share": 0.2}
