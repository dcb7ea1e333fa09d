from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.retrieval.approximate_index import (
    INDEX_FILE,
    ROWS_FILE,
    Approximate,
    Effort,
    Kind,
    build,
    changed_share,
    choose_kind,
    list_count,
    memory_bytes,
    pq_bytes,
)
from models.retrieval.dense_index import DenseIndex, build_index, read_facts, recall, write
from models.retrieval.dense_index import build as build_flat
from models.settings import IndexSettings

SETTINGS = IndexSettings(hnsw_m=8, hnsw_ef_construction=40, hnsw_ef_search=32, ivf_pq_bytes=4, ivf_probes=1, rescore=2)
EVERYTHING = Effort(ef=100_000, probes=100_000, rescore=100_000)


def clustered(count: int, dimensions: int = 16, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dimensions))
    rows = centres[random.integers(0, 40, count)] + 0.5 * random.standard_normal((count, dimensions))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def names(count: int) -> list[str]:
    return [f"p{row:05}" for row in range(count)]


def written(
    folder: Path,
    vectors: NDArray[np.float32],
    ids: list[str],
    kind: Kind,
    previous: Path | None = None,
    chosen: IndexSettings = SETTINGS,
) -> DenseIndex:
    before = None if previous is None else (f"version of {previous.name}", previous)
    queries = clustered(32, vectors.shape[1], seed=7)
    build_index(folder, vectors, ids, kind, chosen, lambda: queries, before)
    return DenseIndex.load(folder)


@pytest.mark.parametrize(
    ("count", "chosen", "expected"),
    [
        (10_000, {}, "flat"),
        (50_000, {}, "flat"),
        (50_001, {}, "hnsw"),
        (40_000, {"max_memory_mb": 50}, "hnsw"),
        (2_000_000, {}, "hnsw"),
        (20_000_000, {}, "ivf_pq"),
        (60_000, {"max_memory_mb": 10}, "ivf_pq"),
        (2_000_000, {"hnsw_sq8": False}, "ivf_pq"),
        (5_000, {"kind": "ivf_pq"}, "ivf_pq"),
        (5_000_000, {"kind": "flat"}, "flat"),
        (1_000, {"kind": "hnsw"}, "flat"),
        (0, {}, "flat"),
    ],
)
def test_the_kind_follows_size_memory_and_setting(count: int, chosen: dict[str, object], expected: str) -> None:
    assert choose_kind(count, 384, IndexSettings.model_validate(chosen)) == expected


@pytest.mark.parametrize(("kind", "sq8"), [("hnsw", True), ("hnsw", False), ("ivf_pq", True)])
def test_the_estimate_of_the_memory_is_that_of_the_file(tmp_path: Path, kind: Kind, sq8: bool) -> None:
    chosen = SETTINGS.model_copy(update={"hnsw_sq8": sq8, "hnsw_m": 16})
    written(tmp_path, clustered(3000, 64), names(3000), kind, chosen=chosen)
    size = (tmp_path / INDEX_FILE).stat().st_size
    assert memory_bytes(kind, 3000, 64, chosen) == pytest.approx(size, rel=0.2)


def test_parameters_of_ivf_pq_fit_any_corpus_and_dimension() -> None:
    assert [list_count(count, SETTINGS) for count in (0, 1024, 10_000, 1_000_000)] == [1, 26, 256, 4000]
    assert list_count(100_000, SETTINGS.model_copy(update={"ivf_lists": 77})) == 77
    chosen = IndexSettings(ivf_pq_bytes=48)
    assert [pq_bytes(dimensions, chosen) for dimensions in (384, 768, 100, 7, 1)] == [48, 48, 25, 7, 1]


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
def test_the_effort_is_raised_until_the_recall_is_met(tmp_path: Path, kind: Kind) -> None:
    vectors = clustered(4000)
    index = written(tmp_path, vectors, names(4000), kind)
    facts = read_facts(tmp_path)
    assert (index.kind, facts["base"], facts["tombstones"], facts["additions"]) == (kind, None, 0, 0)
    assert facts["recall"] >= 0.99
    queries = clustered(50, seed=3)
    assert recall(index, queries) >= 0.97
    # The settings alone would not have met it.
    low = Effort(SETTINGS.hnsw_ef_search, SETTINGS.ivf_probes, SETTINGS.rescore)
    assert recall(index, queries, replace(low, rescore=1)) < facts["recall"]
    rows, scores = index.search(queries, 100)
    whole = DenseIndex(build_flat(vectors), names(4000))
    np.testing.assert_array_equal(scores, whole.score(queries, rows))
    for query in range(len(queries)):
        missed = np.setdiff1d(whole.search(queries[query : query + 1], 100)[0], rows[query])
        assert len(missed) <= 25


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
def test_the_same_vectors_give_the_same_bytes(tmp_path: Path, kind: Kind) -> None:
    for name in ("one", "two"):
        written(tmp_path / name, clustered(2000), names(2000), kind)
    for name in (path.name for path in (tmp_path / "one").iterdir()):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_index_says_what_it_needs(tmp_path: Path) -> None:
    index = written(tmp_path, clustered(1500), names(1500), "hnsw")
    assert index.effort == Effort(**read_facts(tmp_path)["effort"])
    (tmp_path / INDEX_FILE).unlink()
    with pytest.raises(ArtifactError, match="approximate"):
        DenseIndex.load(tmp_path)
    built = build("hnsw", clustered(1500), SETTINGS)
    with pytest.raises(ArtifactError, match="1500 vectors for 3 rows"):
        Approximate(built, "hnsw", np.arange(3), 3, Effort())
    (tmp_path / ROWS_FILE).unlink()
    with pytest.raises(ArtifactError, match="approximate_rows"):
        DenseIndex.load(tmp_path)


LARGE = 24_000  # passages: with fewer a filtered search would scan
SHARES = [0.001, 0.02, 0.6, 0.95]


@pytest.fixture(scope="module", params=["hnsw", "ivf_pq"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DenseIndex:
    chosen = SETTINGS.model_copy(update={"ivf_lists": 60, "ivf_pq_bytes": 2})
    folder = tmp_path_factory.mktemp(request.param)
    return written(folder, clustered(LARGE, 8), names(LARGE), request.param, chosen=chosen)


@pytest.mark.parametrize("share", SHARES)
def test_only_allowed_rows_are_found_and_the_list_is_filled_with_them(large: DenseIndex, share: float) -> None:
    allowed = np.random.default_rng(5).random(LARGE) < share
    queries = clustered(20, 8, seed=6)
    rows, scores = large.search(queries, 40, allowed)
    filled = min(40, int(allowed.sum()))
    assert (rows[:, :filled] >= 0).all()
    assert allowed[rows[:, :filled]].all()
    np.testing.assert_array_equal(rows[:, filled:], -1)
    best = large.search(queries, 40, allowed, exact=True)[1]
    assert (scores[:, :filled] >= best[:, filled - 1 : filled]).mean() > 0.85


def test_too_little_effort_for_a_filter_still_fills_the_list(large: DenseIndex) -> None:
    vectors = large.vectors()
    similarity = vectors @ vectors[0]
    # Nothing near the query may be read: what is looked at first is hardly ever allowed.
    allowed = similarity < np.quantile(similarity, 0.93)
    rows, _ = large.search(vectors[:1], 30, allowed, effort=Effort(ef=1, probes=1, rescore=1))
    assert (rows >= 0).all()
    assert allowed[rows].all()


BASE = 1200


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    written(folder, clustered(BASE, 8), names(BASE), "ivf_pq")
    return folder


def change(
    ids: list[str], vectors: NDArray[np.float32], removed: int, edited: int, added: int, seed: int
) -> tuple[list[str], NDArray[np.float32]]:
    """A corpus after some passages left, some changed and some came, sorted by id as corpora are."""
    random = np.random.default_rng(seed)
    touched = random.permutation(len(ids))[: removed + edited]
    kept = np.setdiff1d(np.arange(len(ids)), touched[:removed])
    vectors = vectors.copy()
    vectors[touched[removed:]] = clustered(edited, vectors.shape[1], seed=seed + 1)
    fresh = [f"p{random.integers(0, BASE):05}-{seed}-{number}" for number in range(added)]
    ids = [ids[row] for row in kept] + fresh
    vectors = np.concatenate([vectors[kept], clustered(added, vectors.shape[1], seed=seed + 2)])
    order = np.argsort(ids)
    return [ids[index] for index in order], vectors[order]


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 10), st.integers(0, 40), st.integers(0, 10_000)),
        min_size=1,
        max_size=3,
    ),
    share=st.sampled_from([None, 0.02, 0.5]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_carried_index_finds_what_one_built_whole_finds(
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, int, int, int]],
    share: float | None,
) -> None:
    ids, vectors, previous = names(BASE), clustered(BASE, 8), base
    chosen = SETTINGS.model_copy(update={"max_delta_share": 1.0})
    for removed, edited, added, seed in steps:
        ids, vectors = change(ids, vectors, removed, edited, added, seed)
        folder = tmp_path_factory.mktemp("next")
        written(folder, vectors, ids, "ivf_pq", previous, chosen)
        assert (folder / INDEX_FILE).stat().st_ino == (base / INDEX_FILE).stat().st_ino
        previous = folder
    index = DenseIndex.load(previous)
    whole = DenseIndex(build_flat(vectors), ids)
    allowed = None if share is None else np.random.default_rng(1).random(len(ids)) < share
    queries = clustered(12, 8, seed=8)
    for result, expected in zip(
        index.search(queries, 30, allowed, effort=EVERYTHING), whole.search(queries, 30, allowed), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


def test_removed_passages_are_tombstones_and_new_ones_are_found(tmp_path: Path, base: Path) -> None:
    ids, vectors = change(names(BASE), clustered(BASE, 8), removed=5, edited=3, added=4, seed=1)
    index = written(tmp_path / "next", vectors, ids, "ivf_pq", base)
    facts = read_facts(tmp_path / "next")
    assert (facts["tombstones"], facts["additions"], facts["base"]) == (8, 7, f"version of {base.name}")
    new = [row for row, name in enumerate(ids) if "-" in name]
    np.testing.assert_array_equal(index.search(vectors[new], 1)[0][:, 0], new)
    again = written(tmp_path / "again", vectors, ids, "ivf_pq", tmp_path / "next")
    assert read_facts(tmp_path / "again") == facts
    np.testing.assert_array_equal(again.search(vectors[:9], 5)[0], index.search(vectors[:9], 5)[0])


@pytest.mark.parametrize("readable", [None, 0.5, 0.05])
def test_a_removed_passage_never_comes_back_from_a_graph_that_still_has_it(
    tmp_path: Path, readable: float | None
) -> None:
    count = 9000
    written(tmp_path / "base", clustered(count, 8), names(count), "hnsw")
    ids, vectors = change(names(count), clustered(count, 8), removed=300, edited=100, added=50, seed=4)
    index = written(tmp_path / "next", vectors, ids, "hnsw", tmp_path / "base")
    facts = read_facts(tmp_path / "next")
    assert (facts["tombstones"], facts["additions"]) == (400, 150)
    gone = sorted(set(names(count)) - set(ids))
    assert len(gone) == 300
    # Asked for exactly what was removed, where the graph has nothing nearer.
    old = clustered(count, 8)[[int(name[1:]) for name in gone]]
    allowed = None if readable is None else np.random.default_rng(2).random(len(ids)) < readable
    rows, scores = index.search(old, 20, allowed, effort=Effort(ef=400, rescore=4))
    assert (rows >= 0).all()
    assert allowed is None or allowed[rows].all()
    np.testing.assert_array_equal(scores, index.score(old, rows))
    assert not set(gone) & {index.passage_ids[row] for row in rows.ravel().tolist()}
    # What replaced an edited passage is the vector of today.
    np.testing.assert_allclose(scores[:, 0], (old * vectors[rows[:, 0]]).sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(("removed", "added", "compacted"), [(50, 50, False), (120, 0, False), (0, 121, True)])
def test_an_index_is_built_anew_when_too_much_of_it_changed(
    tmp_path: Path, base: Path, removed: int, added: int, compacted: bool
) -> None:
    ids, vectors = change(names(BASE), clustered(BASE, 8), removed, 0, added, seed=2)
    written(tmp_path, vectors, ids, "ivf_pq", base)
    facts = read_facts(tmp_path)
    assert (facts["base"] is None) == compacted
    if compacted:
        assert (facts["tombstones"], facts["additions"]) == (0, 0)


def test_an_index_built_with_other_parameters_is_not_carried_on(tmp_path: Path, base: Path) -> None:
    chosen = SETTINGS.model_copy(update={"ivf_pq_bytes": 8})
    written(tmp_path, clustered(BASE, 8), names(BASE), "ivf_pq", base, chosen)
    assert read_facts(tmp_path)["base"] is None


def test_the_summary_counts_and_sizes_what_was_written(tmp_path: Path, base: Path) -> None:
    ids, vectors = change(names(BASE), clustered(BASE, 8), removed=5, edited=0, added=4, seed=1)
    queries = clustered(9, 8, seed=3)
    result = build_index(tmp_path / "next", vectors, ids, "ivf_pq", SETTINGS, lambda: queries, ("v1", base))
    assert {name: result[name] for name in ("dagster/row_count", "kind", "tombstones", "additions", "carried")} == {
        "dagster/row_count": BASE - 1, "kind": "ivf_pq", "tombstones": 5, "additions": 4, "carried": True,
    }  # fmt: skip
    assert result["recall_queries"] == 9
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "next").glob("*.faiss"))
    flat = build_index(tmp_path / "flat", vectors, ids, "flat", SETTINGS, lambda: pytest.fail("no query is needed"))
    assert (flat["kind"], flat["recall"], flat["carried"]) == ("flat", 1.0, False)
    assert DenseIndex.load(tmp_path / "flat").kind == "flat"


def test_an_exact_predecessor_has_nothing_to_carry_on(tmp_path: Path) -> None:
    write(tmp_path / "flat", clustered(BASE, 8), names(BASE))
    written(tmp_path / "next", clustered(BASE, 8), names(BASE), "ivf_pq", tmp_path / "flat")
    assert read_facts(tmp_path / "next")["base"] is None


def test_the_changed_share_counts_what_left_and_what_came() -> None:
    assert changed_share(np.arange(10), 10) == 0
    assert changed_share(np.array([0, -1, 1, 2]), 4) == 0.5
    assert changed_share(np.array([], dtype=np.int64), 3) == 3


def test_recall_of_an_exact_or_empty_index_is_whole() -> None:
    vectors = clustered(300, 8)
    assert recall(DenseIndex(build_flat(vectors), names(300)), clustered(5, 8, seed=1)) == 1
    assert recall(DenseIndex(build_flat(vectors), names(300)), vectors[:0]) == 1
    assert recall(DenseIndex(build_flat(vectors[:0]), []), vectors[:2]) == 1
