from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.retrieval.dense_index import FACTS_FILE, INDEX_FILE, DenseIndex, build, write
from models.retrieval.passage_ids import IDS_FILE, PassageIds


def unit_rows(count: int, dimensions: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def index_of(vectors: NDArray[np.float32], ids: list[str] | None = None) -> DenseIndex:
    return DenseIndex(build(vectors), ids or [f"p{row:04}" for row in range(len(vectors))])


@pytest.mark.parametrize("count", [3, 40])
def test_search_finds_what_comparing_with_every_passage_finds(count: int) -> None:
    vectors, queries = unit_rows(500), unit_rows(count, seed=1)
    rows, scores = index_of(vectors).search(queries, 20)
    similarity = queries @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-similarity, axis=1)[:, :20])
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, rows, axis=1), atol=1e-6)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32


def test_what_was_written_is_loaded(tmp_path: Path) -> None:
    vectors = unit_rows(50)
    write(tmp_path, vectors, [f"p{row}" for row in range(50)])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([INDEX_FILE, IDS_FILE, FACTS_FILE])
    loaded = DenseIndex.load(tmp_path)
    assert (len(loaded), loaded.dimensions, loaded.passage_ids[7]) == (50, 16, "p7")
    for result, expected in zip(loaded.search(vectors[:9], 5), index_of(vectors).search(vectors[:9], 5), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_equal_passages_come_in_the_order_of_their_ids() -> None:
    first, other = unit_rows(2)
    vectors = np.stack([first, other, first, first, other, first])
    index = index_of(vectors, ["f", "b", "a", "z", "c", "m"])
    rows, scores = index.search(first[None, :], 6)
    assert [index.passage_ids[row] for row in rows[0]] == ["a", "f", "m", "z", "b", "c"]
    assert scores[0, 0] == scores[0, 3]


def test_ties_at_the_cut_are_resolved_however_many_there_are() -> None:
    first, other = unit_rows(2)
    ids = [f"p{number:03}" for number in np.random.default_rng(2).permutation(300)]
    index = index_of(np.stack([first] * 299 + [other]), ids)
    expected = sorted(ids[:299])[:5]
    for queries in (first[None, :], np.stack([other, first]), np.repeat(first[None, :], 30, axis=0)):
        rows, _ = index.search(queries, 5)
        assert [index.passage_ids[row] for row in rows[-1]] == expected


def test_scores_do_not_depend_on_how_many_queries_are_searched_together() -> None:
    vectors, queries = unit_rows(300, 64), unit_rows(50, 64, seed=1)
    index = index_of(vectors)
    together = index.search(queries, 10)
    for number in range(0, 50, 7):
        alone = index.search(queries[number : number + 1], 10)
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])
    np.testing.assert_array_equal(index.score(queries, together[0]), together[1])


def test_fewer_passages_than_asked_for_leave_the_rest_empty() -> None:
    rows, scores = index_of(unit_rows(3)).search(unit_rows(2, seed=1), 5)
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    np.testing.assert_array_equal(rows[:, 3:], -1)
    assert np.isneginf(scores[:, 3:]).all()


def test_an_empty_index_and_no_queries_give_nothing() -> None:
    rows, scores = index_of(np.empty((0, 16), dtype=np.float32)).search(unit_rows(2), 3)
    np.testing.assert_array_equal(rows, -1)
    assert np.isneginf(scores).all()
    assert index_of(unit_rows(4)).search(np.empty((0, 16), dtype=np.float32), 3)[0].shape == (0, 3)
    assert index_of(unit_rows(4)).score(unit_rows(1), np.empty((1, 0), dtype=np.int64)).shape == (1, 0)


@pytest.mark.parametrize("readable", [0, 1, 4, 30])
def test_only_allowed_rows_are_found_and_the_list_is_filled_with_them(readable: int) -> None:
    vectors, queries = unit_rows(100), unit_rows(25, seed=1)
    allowed = np.zeros(100, dtype=bool)
    allowed[np.random.default_rng(3).permutation(100)[:readable]] = True
    rows, scores = index_of(vectors).search(queries, 10, allowed)
    similarity = np.where(allowed, queries @ vectors.T, -np.inf)
    expected = np.argsort(-similarity, axis=1)[:, :10]
    filled = min(10, readable)
    np.testing.assert_array_equal(rows[:, :filled], expected[:, :filled])
    np.testing.assert_array_equal(rows[:, filled:], -1)
    assert np.isneginf(scores[:, filled:]).all()


def test_a_row_of_minus_one_scores_below_everything() -> None:
    scores = index_of(unit_rows(5)).score(unit_rows(1), np.array([[2, -1]]))
    assert np.isfinite(scores[0, 0])
    assert np.isneginf(scores[0, 1])


def test_missing_and_unlike_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        DenseIndex.load(tmp_path)
    with pytest.raises(ArtifactError, match="3 vectors for 2"):
        write(tmp_path, unit_rows(3), ["a", "b"])
    write(tmp_path, unit_rows(3), ["a", "b", "c"])
    PassageIds.of(["a"]).save(tmp_path)
    with pytest.raises(ArtifactError, match="3 vectors for 1"):
        DenseIndex.load(tmp_path)
    (tmp_path / IDS_FILE).unlink()
    with pytest.raises(ArtifactError, match=f"{IDS_FILE} is missing"):
        DenseIndex.load(tmp_path)


def test_the_same_embeddings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, unit_rows(20), [f"p{row}" for row in range(20)])
    for name in (INDEX_FILE, IDS_FILE, FACTS_FILE):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
