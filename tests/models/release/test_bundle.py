"""The serving bundle as a folder, and the golden scores that a reloaded one must reproduce."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cascade.calibration import probability
from models.contracts.tiers import MODEL_TIERS
from models.errors import ArtifactError
from models.release.bundle import Bundle
from models.release.golden import GoldenQuery, compare_golden, golden_queries
from models.release.parts import BundleParts
from models.release.release_candidate import index_version, write_bundle
from models.serving.loaded_bundle import load_bundle
from models.store.artifacts import ArtifactStore
from models.store.durable_files import canonical_json
from tests.small_bundle import BUDGET_MS, QUESTION, Small

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}


def parts_of(small: Small) -> BundleParts:
    current = dict(small.artifacts)
    versions = Bundle.open(small.first.bundle).facts.versions
    for asset in ("training/scoring_engines", "evaluation/score_calibration", "evaluation/offline_evaluation"):
        current[asset] = small.store.open(asset, versions[asset.rpartition("/")[2]])
    return BundleParts.of(
        {asset.rpartition("/")[2]: artifact for asset, artifact in current.items()}, small.settings.tiers
    )


def test_a_bundle_holds_all_that_serving_reads_and_no_pickle(small: Small) -> None:
    files = small.first.bundle.manifest.files
    assert {
        "bundle.json", "passages.arrow", "passage_texts.arrow", "calibration.json", "golden.json",
        "report/evaluation.json",
        "dense_index/index.faiss", "encoder/model.safetensors",
        "large/model.safetensors", "compact/model.safetensors", "engines/large/engine.json",
        "engines/compact/engine.json",
    } <= files.keys()  # fmt: skip
    assert any(name.startswith("lexical_index/") for name in files)
    assert not [name for name in files if Path(name).suffix in PICKLES]
    assert not [name for name in files if small.first.bundle.path(name).read_bytes()[:1] == b"\x80"], "pickle's mark"


def test_it_says_what_it_was_made_of(small: Small) -> None:
    facts = Bundle.open(small.first.bundle).facts
    assert facts.versions == parts_of(small).versions()
    assert facts.corpus_version == facts.versions["passages"]
    assert facts.index_version == index_version(
        facts.versions["dense_index"], facts.versions["lexical_index"], facts.versions["first_stage"]
    )
    served = facts.settings
    assert (served.encoder, served.index) == (small.settings.encoder, small.settings.index)
    assert served.tiers == small.settings.tiers
    assert (served.generator, served.evaluation) == (
        small.settings.generator.model_dump(include={"passages", "max_sentences", "answered_share"}),
        small.settings.evaluation.model_dump(mode="json"),
    )
    assert (facts.format, facts.max_tokens, facts.candidates) == (4, 64, 8)


def test_its_parts_are_read_as_what_they_are(small: Small) -> None:
    bundle = Bundle.open(small.first.bundle)
    calibration = small.first.bundle.path("calibration.json")
    assert canonical_json(bundle.calibration.to_dict()) == calibration.read_bytes()
    assert [asdict(query) for query in bundle.golden] == small.first.bundle.read_json("golden.json")
    tiers = [tier.name for tier in MODEL_TIERS]
    assert {name for tier in tiers for name in bundle.model_files(tier)} == {
        name for name in small.first.bundle.manifest.files if name.startswith((*tiers, "engines"))
    }
    for name, digest in bundle.model_files("large").items():
        assert digest == small.first.bundle.manifest.files[name].sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 is not known"),
        ({"versions": None}, "versions"),
        ({"candidates": "many"}, "candidates"),
    ],
)
def test_a_bundle_that_says_other_things_is_refused(
    small: Small, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    facts = small.first.bundle.read_json("bundle.json")
    (tmp_path / "bundle.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ArtifactError, match=message):
        Bundle.open(replace(small.first.bundle, folder=tmp_path))


def test_the_same_parts_give_the_same_bundle(small: Small, tmp_path: Path) -> None:
    written = write_bundle(parts_of(small), small.settings, tmp_path)
    facts = Bundle.open(small.first.bundle).facts
    assert written == {"corpus_version": facts.corpus_version, "index_version": facts.index_version}
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert names == sorted(small.first.bundle.manifest.files)
    for name in ("bundle.json", "golden.json", "calibration.json", "passages.arrow", "passage_texts.arrow"):
        assert (tmp_path / name).read_bytes() == small.first.bundle.path(name).read_bytes()


def test_another_measurement_of_the_times_gives_the_same_bundle(small: Small, tmp_path: Path) -> None:
    parts = parts_of(small)
    measured = shutil.copytree(parts.offline_evaluation.folder, tmp_path / "measured again")
    report = measured / "report" / "evaluation.json"
    report.chmod(0o644)
    report.write_text(report.read_text().replace('"seconds_per_query":', '"seconds_per_query":1'))
    assert report.read_bytes() != parts.offline_evaluation.path("report/evaluation.json").read_bytes()
    again = replace(parts, offline_evaluation=replace(parts.offline_evaluation, folder=measured))
    bundle = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache").get_or_create(
        "release/release_candidate",
        code_version="c",
        inputs={},
        settings={},
        build=lambda folder: write_bundle(again, small.settings, folder),
    )
    assert bundle.data_version == small.first.bundle.data_version
    assert bundle.path("report/evaluation.json").read_bytes() == report.read_bytes()


def test_a_bundle_serves_from_another_place_without_the_store(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.first.bundle.folder, tmp_path / "elsewhere")
    bundle = load_bundle(replace(small.first.bundle, folder=tmp_path / "elsewhere"))
    ranking = bundle.rank_candidates(QUESTION, bundle.retrieve(QUESTION, 4), BUDGET_MS)
    assert len(ranking.items) == 4


def test_index_version_stands_for_both_indexes_and_the_order_of_what_they_bring() -> None:
    versions = {index_version(dense, lexical, order) for dense in "ab" for lexical in "ab" for order in "ab"}
    assert len(versions) == 8
    assert all(len(version) == 24 for version in versions)


def test_golden_queries_are_test_queries_with_their_best_ten() -> None:
    queries = pd.DataFrame(
        {
            "query_id": ["q3", "q1", "q2", "q0", "q4"],
            "text": ["three", "one", "two", "zero", "four"],
            "split": ["test", "test", "dev", "test", "test"],
        }
    )
    rows = [
        (query_id, f"p{rank}", system, rank, -float(rank))
        for query_id in ("q1", "q2", "q3", "q4")
        for system in ("tiered", "hybrid")
        for rank in (2, 1, *range(3, 15))
    ]
    rankings = pd.DataFrame(rows, columns=["query_id", "passage_id", "system", "rank", "score"])
    labels = {"p2": ["staff", "press"], "p9": ["legal"], "p12": ["board"]}
    names = [f"p{rank}" for rank in range(1, 15)]
    passages = pd.DataFrame({"passage_id": names, "access": [labels.get(name, []) for name in names]})
    result = golden_queries(queries, rankings, passages, 3)
    assert [(entry.query_id, entry.query) for entry in result] == [("q1", "one"), ("q3", "three")]
    for entry in result:
        assert entry.passage_ids == [f"p{rank}" for rank in range(1, 11)]
        assert entry.logits == [-float(rank) for rank in range(1, 11)]
        assert entry.labels == ["legal", "staff"], "one label of each labelled passage among the ten"


def entry(**logits: float) -> GoldenQuery:
    return GoldenQuery("q", "how?", list(logits), list(logits.values()), [])


def scores(**logits: float) -> dict[str, float]:
    return dict(zip(logits, probability(np.array(list(logits.values()))).tolist(), strict=True))


def test_equal_scores_compare_as_equal() -> None:
    result = compare_golden([entry(a=2.0, b=0.0)], [scores(a=2.0, b=0.0, other=5.0)], 1e-3)
    assert (result.queries, result.max_difference, result.order_equal) == (1, 0.0, True)


def test_the_largest_difference_is_told_and_an_order_that_changed() -> None:
    result = compare_golden([entry(a=2.0, b=0.0), entry(c=1.0)], [scores(a=-1.0, b=0.0), scores(c=1.0)], 1e-3)
    assert result.max_difference == pytest.approx(1 / (1 + np.exp(-2.0)) - 1 / (1 + np.exp(1.0)))
    assert not result.order_equal


def test_scores_closer_than_the_tolerance_may_change_places() -> None:
    close, far = entry(a=0.0005, b=0.0), entry(a=0.5, b=0.0)
    swapped = scores(a=-0.0005, b=0.0)
    assert compare_golden([close], [swapped], 1e-3).order_equal
    assert not compare_golden([far], [swapped], 1e-3).order_equal


def test_a_passage_that_is_gone_is_a_whole_difference() -> None:
    result = compare_golden([entry(a=2.0, b=0.0)], [scores(a=2.0)], 1e-3)
    assert result.max_difference == 1.0


def test_golden_passages_that_are_no_longer_found_are_another_order_and_no_warning() -> None:
    comparison = compare_golden([entry(a=2.0, b=1.0, c=0.0)], [scores(a=2.0)], 1e-3)

    assert (comparison.max_difference, comparison.order_equal) == (1.0, False)


def test_no_golden_queries_prove_nothing() -> None:
    assert not compare_golden([], [], 1e-3).order_equal


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=8), st.floats(0, 1e-4))
def test_noise_below_the_tolerance_passes(logits: list[float], noise: float) -> None:
    ordered = sorted(logits, reverse=True)
    golden = GoldenQuery("q", "how?", [str(index) for index in range(len(ordered))], ordered, [])
    moved = probability(np.array(ordered)) + noise * np.resize([1, -1], len(ordered))
    result = compare_golden([golden], [{str(index): float(score) for index, score in enumerate(moved)}], 1e-3)
    assert result.max_difference <= noise + 1e-12
    assert result.order_equal
