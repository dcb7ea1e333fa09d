from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contracts.tables import Judgments, Queries, check_table
from models.corpus.splits import (
    assign_splits,
    evaluation_set,
    leakage,
    normalize_query,
    place_queries,
    repeated_texts,
    sample_by_hash,
)


def _queries(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["query_id", "text", "split", "group"]).astype("str")


def _judgments(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["query_id", "document_id", "grade"])
    return table.astype({"query_id": "str", "document_id": "str", "grade": "int64"})


def _passages(document_ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"document_id": document_ids}, dtype="str")


def _splits(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["query_id"], table["split"], strict=True))


def _plain(count: int, split: str = "", group: str = "") -> pd.DataFrame:
    return _queries([(f"q{n}", f"question number {n}", split, group) for n in range(count)])


def test_splits_of_the_source_are_kept() -> None:
    queries = _queries([("a", "one", "test", ""), ("b", "two", "dev", ""), ("c", "three", "train", "")])
    assert _splits(assign_splits(queries, _judgments([]), 0.5, 0.4)) == {"a": "test", "b": "dev", "c": "train"}


def test_dev_is_carved_out_of_train_and_leaves_test_alone() -> None:
    given_test = {f"t{n}" for n in range(50)}
    rows = [(query_id, f"text {query_id}", "test", "") for query_id in sorted(given_test)]
    queries = pd.concat([_plain(2000, "train"), _queries(rows)], ignore_index=True)
    splits = _splits(assign_splits(queries, _judgments([]), 0.1, 0.3))
    assert {query_id for query_id, split in splits.items() if split == "test"} == given_test
    assert 150 < sum(split == "dev" for split in splits.values()) < 250


def test_test_is_carved_too_where_there_is_only_train() -> None:
    splits = list(_splits(assign_splits(_plain(2000, "train"), _judgments([]), 0.1, 0.2)).values())
    assert 150 < splits.count("dev") < 250
    assert 340 < splits.count("test") < 460


def test_a_source_of_test_queries_only_keeps_them() -> None:
    assert set(assign_splits(_plain(50, "test"), _judgments([]), 0.1, 0.2)["split"]) == {"test"}


def test_groups_do_not_straddle_splits_and_stay_as_the_corpus_grows() -> None:
    rows = [(f"q{n}", f"text {n}", "", f"module{n % 60}") for n in range(1200)]
    few = assign_splits(_queries(rows[:600]), _judgments([]), 0.2, 0.3)
    many = assign_splits(_queries(rows), _judgments([]), 0.2, 0.3)
    modules = {query_id: group for query_id, _, _, group in rows}
    placed = {(modules[query_id], split) for query_id, split in _splits(many).items()}
    assert len(placed) == 60
    assert set(many["split"]) == {"train", "dev", "test"}
    assert _splits(few).items() <= _splits(many).items()


def test_queries_that_share_relevant_documents_stay_together() -> None:
    queries = _plain(400)
    judgments = _judgments([(f"q{n}", f"d{n // 4}", 1) for n in range(400)])
    splits = _splits(assign_splits(queries, judgments, 0.3, 0.3))
    assert all(len({splits[f"q{n}"] for n in range(4 * d, 4 * d + 4)}) == 1 for d in range(100))
    assert len(set(splits.values())) == 3


def test_documents_judged_not_relevant_link_no_queries() -> None:
    judgments = _judgments([(f"q{n}", "hub", 0) for n in range(400)])
    assert len(set(_splits(assign_splits(_plain(400), judgments, 0.3, 0.3)).values())) == 3


def test_a_document_that_answers_everything_does_not_put_all_queries_into_one_split() -> None:
    judgments = _judgments([(f"q{n}", "hub", 1) for n in range(400)])
    assert len(set(_splits(assign_splits(_plain(400), judgments, 0.3, 0.3)).values())) == 3


def test_a_query_without_split_follows_the_split_given_to_its_group() -> None:
    rows = [(f"q{n}", f"text {n}", "test" if n % 2 else "", f"g{n // 2}") for n in range(60)]
    assert set(assign_splits(_queries(rows), _judgments([]), 0.1, 0.1)["split"]) == {"test"}


def test_training_queries_with_the_text_of_a_test_query_are_dropped_and_named() -> None:
    queries = _queries(
        [
            ("a", "What is  BM25?", "test", ""),
            ("b", "what is bm25", "train", ""),
            ("c", "WHAT IS BM25", "dev", ""),
            ("d", "What is RRF?", "train", ""),
            ("e", "what is rrf", "train", ""),
        ]
    )
    judgments = _judgments([(query_id, "x", 1) for query_id in "abcde"])
    placed = place_queries(queries, judgments, 0.1, 0.1)
    assert repeated_texts(placed).to_dict("records") == [
        {"query_id": "b", "other_id": "a", "kind": "same_text"},
        {"query_id": "c", "other_id": "a", "kind": "same_text"},
    ]
    kept = assign_splits(queries, judgments, 0.1, 0.1)
    assert list(kept["query_id"]) == ["a", "d", "e"]
    assert leakage(placed, judgments, _passages(["x"]))["query_id"].tolist() == ["b", "c"]
    assert leakage(placed, judgments, _passages(["y"])).empty
    assert leakage(kept, judgments, _passages(["x"])).empty


def test_inputs_are_left_as_they_were() -> None:
    queries, judgments = _plain(30), _judgments([("q1", "d", 1)])
    before = queries.copy(), judgments.copy()
    assign_splits(queries, judgments, 0.1, 0.1)
    evaluation_set(assign_splits(queries, judgments, 0.4, 0.4), judgments, _passages(["d"]), 5, 5)
    pd.testing.assert_frame_equal(queries, before[0])
    pd.testing.assert_frame_equal(judgments, before[1])


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdefghijkl"), st.sampled_from(["", "train", "dev", "test"]), st.sampled_from("xyz ")
        ),
        max_size=40,
    ),
    links=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 9), st.integers(0, 1)), max_size=60),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_query_is_placed_once_without_leaks(
    rows: list[tuple[str, str, str]], links: list[tuple[int, int, int]]
) -> None:
    queries = _queries([(f"q{n}", text, split, group.strip()) for n, (text, split, group) in enumerate(rows)])
    judgments = _judgments(list({(q, d): (f"q{q}", f"d{d}", grade) for q, d, grade in links}.values()))
    placed = place_queries(queries, judgments, 0.3, 0.3)
    assert sorted(placed["query_id"]) == sorted(queries["query_id"])
    kept = assign_splits(queries, judgments, 0.3, 0.3)
    check_table(kept, Queries, "queries")
    assert repeated_texts(kept).empty
    assert set(placed["query_id"]) - set(kept["query_id"]) == set(repeated_texts(placed)["query_id"])
    assert set(queries.loc[queries["split"] == "test", "query_id"]) <= set(
        kept.loc[kept["split"] == "test", "query_id"]
    )


@pytest.mark.parametrize(
    ("text", "other"), [("What?", "what"), ("a\u00a0 b", "A B."), ("\ufb01ne", "fine"), ("Straße", "STRASSE")]
)
def test_normalized_texts_are_equal(text: str, other: str) -> None:
    assert normalize_query(text) == normalize_query(other)


def test_different_questions_stay_different() -> None:
    assert len({normalize_query(text) for text in ("C", "C++", "C#", "?", "!")}) == 5


def _evaluation_tables(count: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    splits = ["train", "dev", "test", "test"]
    queries = _queries([(f"q{n}", f"text {n}", splits[n % 4], "") for n in range(count)]).drop(columns="group")
    judgments = _judgments([(f"q{n}", f"d{n}", 1) for n in range(count)])
    return queries, judgments, _passages([f"d{n}" for n in range(count)])


def test_evaluation_set_is_capped_and_holds_its_contracts() -> None:
    tables = evaluation_set(*_evaluation_tables(400), 20, 50)
    check_table(tables.queries, Queries, "queries")
    check_table(tables.judgments, Judgments, "judgments")
    assert tables.queries["split"].value_counts().to_dict() == {"test": 50, "dev": 20}
    assert set(tables.judgments["query_id"]) == set(tables.queries["query_id"])


def test_no_limit_takes_every_test_query() -> None:
    tables = evaluation_set(*_evaluation_tables(400), 20, 0)
    assert tables.queries["split"].value_counts().to_dict() == {"test": 200, "dev": 20}


def test_only_new_queries_displace_others_in_the_evaluation_set() -> None:
    before = set(evaluation_set(*_evaluation_tables(400), 20, 50).queries["query_id"])
    after = set(evaluation_set(*_evaluation_tables(440), 20, 50).queries["query_id"])
    assert after - before <= {f"q{n}" for n in range(400, 440)}
    assert len(before & after) > len(before) / 2


QUERY = st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 1]))


@given(first=st.lists(QUERY, min_size=1, max_size=30), added=st.lists(QUERY, max_size=60), size=st.integers(1, 6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_what_is_evaluated_keeps_its_place_as_the_corpus_grows(
    first: list[tuple[str, str, int]], added: list[tuple[str, str, int]], size: int
) -> None:
    """New queries, documents and judgments may join components, move splits and come before others by hash."""

    def tables(rows: list[tuple[str, str, int]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        judgments = _judgments(list({(q, d): (q, d, grade) for q, d, grade in reversed(rows)}.values()))
        asked = _queries([(name, f"question {name}", "", "") for name in sorted(judgments["query_id"].unique())])
        return assign_splits(asked, judgments, 0.3, 0.3), judgments, _passages(list(judgments["document_id"]))

    before = evaluation_set(*tables(first), size, size).queries
    grown = tables(first + added)
    after = evaluation_set(*grown, size, size, before)
    assert _splits(before).items() <= _splits(after.queries).items()
    check_table(after.queries, Queries, "queries")
    again = evaluation_set(*grown, size, size, after.queries)
    pd.testing.assert_frame_equal(again.queries, after.queries)
    pd.testing.assert_frame_equal(again.judgments, after.judgments)


@given(first=st.lists(QUERY, max_size=30), added=st.integers(0, 40))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_new_queries_about_new_documents_move_no_query(first: list[tuple[str, str, int]], added: int) -> None:
    rows = list({(q, d): (q, d, grade) for q, d, grade in first}.values())
    asked = _queries([(name, f"question {name}", "", "") for name in sorted({q for q, _, _ in rows})])
    new = _plain(added)
    judgments = _judgments(rows)
    grown = pd.concat([judgments, _judgments([(f"q{n}", f"new{n}", 1) for n in range(added)])], ignore_index=True)
    before = _splits(assign_splits(asked, judgments, 0.3, 0.3))
    after = _splits(assign_splits(pd.concat([asked, new], ignore_index=True), grown, 0.3, 0.3))
    assert before.items() <= after.items()


def test_a_frozen_query_leaves_when_nothing_answers_it_and_a_smaller_set_keeps_a_part() -> None:
    queries, judgments, passages = _evaluation_tables(400)
    before = evaluation_set(queries, judgments, passages, 20, 50).queries
    gone = before["query_id"][0]
    left = evaluation_set(queries, judgments, passages.drop(index=int(gone[1:])), 20, 50, before).queries
    assert set(before["query_id"]) - set(left["query_id"]) == {gone}
    assert len(left) == 70
    fewer = evaluation_set(queries, judgments, passages, 5, 10, before).queries
    assert (len(fewer), set(fewer["query_id"]) <= set(before["query_id"])) == (15, True)


def test_evaluation_set_takes_only_queries_with_a_relevant_document_in_the_corpus() -> None:
    queries = _queries([(name, f"text {name}", "test", "") for name in "abcd"]).drop(columns="group")
    judgments = _judgments([("a", "d1", 1), ("a", "d2", 0), ("a", "gone", 2), ("b", "d1", 0), ("c", "gone", 1)])
    tables = evaluation_set(queries, judgments, _passages(["d1", "d1", "d2"]), 10, 10)
    assert list(tables.queries["query_id"]) == ["a"]
    assert tables.judgments[["document_id", "grade"]].to_numpy().tolist() == [["d1", 1], ["d2", 0]]


def test_evaluation_set_of_nothing_is_empty() -> None:
    queries, judgments, passages = _evaluation_tables(0)
    tables = evaluation_set(queries, judgments, passages, 10, 10)
    assert (len(tables.queries), len(tables.judgments)) == (0, 0)
    assert list(tables.queries.columns) == ["query_id", "text", "split"]


def test_sample_does_not_depend_on_the_order_of_rows() -> None:
    queries = _plain(100)
    shuffled = queries.sample(frac=1, random_state=3)
    assert list(sample_by_hash(queries, 10)["query_id"]) == list(sample_by_hash(shuffled, 10)["query_id"])


@given(st.lists(st.text(max_size=8), unique=True, max_size=40), st.integers(0, 50), st.randoms())
def test_the_sample_does_not_depend_on_the_order(ids: list[str], size: int, random) -> None:
    shuffled = list(ids)
    random.shuffle(shuffled)
    sample = sample_by_hash(pd.DataFrame({"row_id": ids}), size, id_column="row_id")["row_id"].tolist()
    assert sample == sample_by_hash(pd.DataFrame({"row_id": shuffled}), size, id_column="row_id")["row_id"].tolist()
    assert len(sample) == min(size, len(ids))
