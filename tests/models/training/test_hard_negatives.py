"""Training examples: which positives, which negatives, and what is left out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from models.contracts.tables import TrainingExamples, check_table
from models.corpus.passage_table import PassageTable
from models.settings import TrainingSettings
from models.store.tables import write_table
from models.training.hard_negatives import Mined, TeacherScorer, development_lists
from models.training.hard_negatives import mine_examples as mine
from tests.small_bundle import Small, in_force


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(
        **{"negatives": 2, "draws": 1, "negative_depth": 10, "false_negative_margin": 0.1, **changes}
    )


def passages(count: int, **hashes: int) -> pd.DataFrame:
    """Passages d0 to d<count - 1>; `hashes` gives some the content of another."""
    return pd.DataFrame(
        {
            "passage_id": [f"d{index}#0" for index in range(count)],
            "document_id": [f"d{index}" for index in range(count)],
            "title": "",
            "text": [f"text {index}" for index in range(count)],
            "content_hash": [f"h{hashes.get(f'd{index}', index)}" for index in range(count)],
        }
    )


def mine_examples(
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    candidates: pd.DataFrame,
    table: pd.DataFrame,
    settings: TrainingSettings,
    teacher: TeacherScorer | None = None,
) -> Mined:
    """`hard_negatives.mine_examples` on a table of passages that is written to disk first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "passages.parquet"
        write_table(table, path)
        return mine(queries, judgments, candidates, PassageTable(path), settings, teacher)


def found(documents: list[int], dense: dict[int, float] | None = None, query_id: str = "q") -> pd.DataFrame:
    """Candidates of a query in this order; the dense score falls with the rank unless given."""
    return pd.DataFrame(
        {
            "query_id": query_id,
            "passage_id": [f"d{document}#0" for document in documents],
            "document_id": [f"d{document}" for document in documents],
            "rank": range(1, len(documents) + 1),
            "dense_score": [(dense or {}).get(document, 0.9 - 0.02 * rank) for rank, document in enumerate(documents)],
            "lexical_score": 1.0,
            "dense_rank": range(1, len(documents) + 1),
            "lexical_rank": 0,
        }
    )


def queries(*query_ids: str, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"query_id": list(query_ids), "text": [f"how {name}" for name in query_ids], "split": split})


def judged(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [(query_id, f"d{document}", grade) for query_id, document, grade in rows],
        columns=["query_id", "document_id", "grade"],
    )


def test_a_list_is_the_positive_and_negatives_from_the_candidates() -> None:
    mined = mine_examples(queries("q"), judged(("q", 3, 1)), found([1, 3, 2, 4, 5]), passages(9), settings())
    examples = mined.examples
    check_table(examples, TrainingExamples, "examples")
    assert examples["kind"].tolist() == ["positive", "hard", "hard"]
    assert examples["label"].tolist() == [1.0, 0.0, 0.0]
    assert examples["passage_id"].iloc[0] == "d3#0"
    assert set(examples["passage_id"].iloc[1:]) < {"d1#0", "d2#0", "d4#0", "d5#0"}
    assert examples["passage"].iloc[0] == "text 3"
    assert (mined.queries_offered, mined.queries_used, mined.positives_missed) == (1, 1, 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_candidates_than_negatives_are_all_taken(count: int) -> None:
    mined = mine_examples(
        queries("q"), judged(("q", 0, 1)), found(list(range(count + 1))), passages(9), settings(negatives=5)
    )
    assert len(mined.examples) == 1 + count


def test_a_positive_alone_teaches_nothing() -> None:
    mined = mine_examples(queries("q"), judged(("q", 0, 1)), found([0]), passages(9), settings())
    assert (len(mined.examples), mined.queries_used) == (0, 0)
    assert list(mined.examples.columns)[:2] == ["query_id", "query"]


def test_a_positive_that_retrieval_missed_is_counted() -> None:
    mined = mine_examples(
        queries("q", "r"), judged(("q", 8, 1), ("r", 1, 1)), found([1, 2, 3]), passages(9), settings()
    )
    assert (len(mined.examples), mined.positives_missed, mined.queries_used) == (0, 2, 0)


def test_only_training_queries_are_used() -> None:
    table = pd.concat([queries("a"), queries("b", split="dev"), queries("c", split="test")])
    judgments = judged(("a", 0, 1), ("b", 0, 1), ("c", 0, 1))
    candidates = pd.concat([found([0, 1, 2], query_id=name) for name in "abc"])
    mined = mine_examples(table, judgments, candidates, passages(5), settings())
    assert set(mined.examples["query_id"]) == {"a"}
    assert mined.queries_offered == 1


def test_documents_judged_relevant_are_never_negatives() -> None:
    mined = mine_examples(
        queries("q"), judged(("q", 0, 1), ("q", 1, 2), ("q", 2, 0)), found([0, 1, 2, 3]), passages(9), settings()
    )
    negatives = mined.examples[mined.examples["kind"] == "hard"]["passage_id"]
    assert set(negatives) == {"d2#0", "d3#0"}, "a grade of 0 is a negative"
    positives = mined.examples[mined.examples["kind"] == "positive"]
    assert dict(zip(positives["passage_id"], positives["label"], strict=True)) == {"d0#0": 0.5, "d1#0": 1.0}


def test_a_lower_grade_stands_in_the_list_with_its_own_label() -> None:
    grades = ("q", 0, 1), ("q", 1, 4), ("q", 4, 2)
    mined = mine_examples(queries("q"), judged(*grades), found([0, 1, 2, 3, 4]), passages(9), settings())
    lists = [rows for _, rows in mined.examples.groupby((mined.examples["kind"] == "positive").cumsum())]
    assert [rows["passage_id"].iloc[0] for rows in lists] == ["d0#0", "d1#0"]
    graded = [dict(zip(rows["passage_id"], rows["label"], strict=True)) for rows in lists]
    assert graded[0] == {"d0#0": 0.25, "d2#0": 0.0, "d3#0": 0.0}
    assert graded[1] == {"d1#0": 1.0, "d0#0": 0.25, "d4#0": 0.5, "d2#0": 0.0, "d3#0": 0.0}
    assert mined.counts["pairs_graded"] == 2
    assert (mined.lists, mined.queries_used) == (2, 1)


def test_a_copy_of_the_positive_is_not_a_negative() -> None:
    mined = mine_examples(queries("q"), judged(("q", 0, 1)), found([1, 0, 2, 3]), passages(9, d1=0), settings())
    assert "d1#0" not in set(mined.examples["passage_id"])


def test_what_the_encoder_finds_more_like_the_query_than_the_positive_is_left_out() -> None:
    dense = {0: 0.5, 1: 0.56, 2: 0.549, 3: 0.1}
    mined = mine_examples(queries("q"), judged(("q", 0, 1)), found([1, 2, 0, 3], dense), passages(9), settings())
    assert set(mined.examples["passage_id"]) == {"d0#0", "d2#0", "d3#0"}
    assert mined.false_negatives_filtered == 1


def _mined_for(count: int, order: list[int], chosen: TrainingSettings) -> list[pd.DataFrame]:
    """The list of each of `count` queries whose candidates are alike: each draws by itself."""
    names = [f"q{number}" for number in range(count)]
    candidates = pd.concat([found(order, dict.fromkeys(order, 0.5), name) for name in names], ignore_index=True)
    relevant = judged(*((name, 0, 1) for name in names))
    examples = mine_examples(queries(*names), relevant, candidates, passages(40), chosen).examples
    return [rows for _, rows in examples.groupby("query_id")]


def test_negatives_come_from_the_first_ranks_half_of_them_from_the_top_third() -> None:
    order = list(range(40))
    seen: set[str] = set()
    lists = _mined_for(30, order, settings(negatives=4, negative_depth=31))
    assert len(lists) == 30
    for rows in lists:
        negatives = rows[rows["kind"] == "hard"]["passage_id"].tolist()
        places = [int(name[1:].partition("#")[0]) for name in negatives]
        assert len(set(places)) == 4
        assert max(places) <= 30
        assert sum(location <= 10 for location in places) >= 2
        seen |= set(negatives)
    assert len(seen) > 20


def test_a_stricter_margin_asks_for_a_distance_below_the_positive() -> None:
    dense = {0: 0.5, 1: 0.49, 2: 0.44, 3: 0.1}
    mined = mine_examples(
        queries("q"),
        judged(("q", 0, 1)),
        found([1, 2, 0, 3], dense),
        passages(9),
        settings(false_negative_margin=-0.1),
    )
    assert set(mined.examples["passage_id"]) == {"d0#0", "d2#0", "d3#0"}
    below_zero = {0: -0.2, 1: -0.19, 2: -0.17}
    mined = mine_examples(queries("q"), judged(("q", 0, 1)), found([1, 2, 0], below_zero), passages(9), settings())
    assert set(mined.examples["passage_id"]) == {"d0#0", "d1#0"}, "the margin counts upwards below 0 too"


def test_a_teacher_may_tell_what_is_too_near_the_positive() -> None:
    asked: list[tuple[str, str]] = []

    def teacher(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        asked.extend(pairs)
        return np.array([{"text 0": 0.6, "text 1": 0.65, "text 2": 0.7}.get(passage, 0.0) for _, passage in pairs])

    dense = {0: 0.5, 1: 0.9, 2: 0.9, 3: 0.9}
    mined = mine_examples(
        queries("q"), judged(("q", 0, 1)), found([1, 2, 0, 3], dense), passages(9), settings(), teacher
    )
    assert set(mined.examples["passage_id"]) == {"d0#0", "d1#0", "d3#0"}
    assert mined.false_negatives_filtered == 1
    assert {query for query, _ in asked} == {"how q"}


def test_negatives_come_from_the_retrievers_that_are_named() -> None:
    table = found(list(range(12))).assign(
        dense_rank=[0, 5, 1, 2, 0, 0, 3, 0, 4, 0, 9, 0], lexical_rank=[0, 1, 0, 0, 2, 9, 0, 3, 0, 0, 0, 0]
    )

    def negatives(*sources: str) -> set[str]:
        chosen = settings(negatives=12, negative_depth=4, negative_sources=list(sources))
        mined = mine_examples(queries("q"), judged(("q", 0, 1)), table, passages(12), chosen)
        return {name.partition("#")[0] for name in mined.examples["passage_id"].iloc[1:]}

    assert negatives("hybrid") == {"d1", "d2", "d3"}
    assert negatives("dense") == {"d2", "d3", "d6", "d8"}
    assert negatives("bm25") == {"d1", "d4", "d7"}
    assert negatives("dense", "bm25") == {"d1", "d2", "d3", "d4", "d6", "d7", "d8"}


def test_the_share_of_the_best_third_is_a_setting() -> None:
    order = list(range(40))
    for share, wanted in ((1.0, 4), (0.25, 1)):
        shares = []
        lists = _mined_for(20, order, settings(negatives=4, negative_depth=31, negative_top_share=share))
        assert len(lists) == 20
        for rows in lists:
            places = [int(name[1:].partition("#")[0]) for name in rows["passage_id"].iloc[1:]]
            shares.append(sum(location <= 10 for location in places))
        assert min(shares) >= wanted
        assert (max(shares) == 4) == (share == 1.0) or share < 1.0


def test_random_negatives_come_from_outside_the_candidates_and_have_no_scores() -> None:
    mined = mine_examples(
        queries("q", "r"),
        judged(("q", 0, 1), ("r", 0, 1)),
        pd.concat([found([0, 1, 2, 3, 4], query_id=name) for name in "qr"]),
        passages(400, d7=0),
        settings(negatives=6, random_share=0.5),
    )
    examples = mined.examples
    check_table(examples, TrainingExamples, "examples")
    counts = examples.groupby(["query_id", "kind"]).size()
    assert counts["q", "positive"] == counts["r", "positive"] == 1
    assert counts["q", "hard"] == 3
    drawn = examples[examples["kind"] == "random"]
    assert 4 <= len(drawn) <= 6
    assert not {"d0#0", "d1#0", "d2#0", "d3#0", "d4#0", "d7#0"} & set(drawn["passage_id"])
    assert drawn["dense_score"].isna().all()
    assert (drawn["label"] == 0).all()
    assert set(drawn[drawn["query_id"] == "q"]["passage_id"]) != set(drawn[drawn["query_id"] == "r"]["passage_id"])
    assert mined.counts["pairs_random"] == len(drawn)


def test_lists_of_other_queries_stay_when_queries_come() -> None:
    names = [f"q{index}" for index in range(30)]
    judgments = judged(*((name, index % 9, 1) for index, name in enumerate(names)))
    candidates = pd.concat([found(list(range(40)), query_id=name) for name in names])

    def lists(count: int) -> dict[str, list[str]]:
        table = queries(*names[:count])
        examples = mine_examples(table, judgments, candidates, passages(40), settings(random_share=0.5)).examples
        return {str(name): rows["passage_id"].tolist() for name, rows in examples.groupby("query_id")}

    few, many = lists(10), lists(30)
    assert few.keys() < many.keys()
    assert all(many[name] == rows for name, rows in few.items())


def test_further_lists_have_other_negatives_and_stand_behind_the_first_ones() -> None:
    candidates = pd.concat([found(list(range(9)), query_id=name) for name in ("q", "r")])
    judgments = judged(("q", 0, 2), ("q", 1, 1), ("r", 2, 1))
    first = mine_examples(queries("q", "r"), judgments, candidates, passages(9), settings()).examples
    mined = mine_examples(queries("q", "r"), judgments, candidates, passages(9), settings(draws=9))
    examples = mined.examples
    pd.testing.assert_frame_equal(examples.iloc[: len(first)].reset_index(drop=True), first)
    numbers = (examples["kind"] == "positive").cumsum()
    lists = [rows for _, rows in examples.groupby(numbers)]
    assert [rows["query_id"].iloc[0] for rows in lists[:3]] in (["q", "q", "r"], ["r", "q", "q"])
    assert mined.lists == len(lists) > 6
    for _, rows in examples[examples["kind"] == "hard"].groupby(numbers):
        assert len(rows) == 2, "no list is short but a first one"
    positive = examples["passage_id"].where(examples["kind"] == "positive").ffill()
    hard = examples.assign(positive=positive)[examples["kind"] == "hard"]
    assert not hard.duplicated(["query_id", "positive", "passage_id"]).any()
    assert (examples[examples["kind"] == "graded"].groupby("passage_id").size() > 1).all()


def test_further_lists_have_other_random_negatives_too() -> None:
    settings_of = settings(draws=2, random_share=0.5)
    examples = mine_examples(queries("q"), judged(("q", 0, 1)), found([0, 1, 2]), passages(99), settings_of).examples
    assert examples["kind"].tolist() == ["positive", "hard", "random"] * 2
    assert examples.loc[examples["label"] == 0, "passage_id"].is_unique


def test_development_lists_are_the_candidates_with_their_grades(tmp_path: Path) -> None:
    table = pd.concat([queries("a", "b", split="dev"), queries("c"), queries("d", split="test")])
    judgments = judged(("a", 2, 2), ("a", 0, 1), ("b", 8, 1), ("c", 0, 1), ("d", 0, 1))
    candidates = pd.concat([found([0, 1, 2], query_id=name) for name in "abcd"])
    write_table(passages(5), tmp_path / "passages.parquet")
    lists = development_lists(table, judgments, candidates, PassageTable(tmp_path / "passages.parquet"))
    check_table(lists, TrainingExamples, "development")
    assert set(lists["query_id"]) == {"a"}, "of b no relevant passage was found"
    assert lists["passage_id"].tolist() == ["d0#0", "d1#0", "d2#0"]
    assert lists["label"].tolist() == [0.5, 0.0, 1.0]


def test_the_same_seed_draws_the_same() -> None:
    arguments = queries("q"), judged(("q", 0, 1)), found(list(range(9))), passages(9)
    first, again, other = (mine_examples(*arguments, settings(seed=seed)).examples for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert first["passage_id"].tolist() != other["passage_id"].tolist()


@runs(max_examples=40, deadline=None)
@given(
    order=st.permutations(list(range(9))),
    relevant=st.sets(st.integers(0, 8), min_size=1, max_size=3),
    negatives=st.integers(1, 9),
    depth=st.integers(1, 12),
)
def test_any_candidates_give_examples_under_the_contract(
    order: list[int], relevant: set[int], negatives: int, depth: int
) -> None:
    mined = mine_examples(
        queries("q"),
        judged(*(("q", document, 1) for document in relevant)),
        found(order),
        passages(9),
        settings(negatives=negatives, negative_depth=depth),
    )
    examples = mined.examples
    if len(examples):
        check_table(examples, TrainingExamples, "examples")
        assert examples["kind"].iloc[0] == "positive"
    for _, rows in examples.groupby((examples["kind"] == "positive").cumsum()):
        assert 2 <= len(rows) <= 1 + negatives
        assert rows["passage_id"].is_unique
        assert not {f"d{document}#0" for document in relevant} & set(rows["passage_id"].iloc[1:])


def test_of_the_small_corpus_the_withdrawn_edition_is_what_is_learned_against(small: Small) -> None:
    examples = small.artifacts["training/training_examples"].read_table("training_examples.parquet")
    check_table(examples, TrainingExamples, "examples")
    positives = examples[examples["kind"] == "positive"]
    for query_id, passage_id in zip(positives["query_id"], positives["passage_id"], strict=True):
        machine, task, _ = query_id.split("/")
        assert passage_id.startswith(f"{machine}/{task}/{in_force(machine, task)}")
    # A second list of a positive cannot have the twin again.
    first = ~positives.duplicated(["query_id", "passage_id"])
    twins = 0
    for _, rows in examples.groupby((examples["kind"] == "positive").cumsum()):
        if not first[rows.index[0]]:
            continue
        machine, task, edition = rows["passage_id"].iloc[0].split("#")[0].split("/")
        twins += any(name.startswith(f"{machine}/{task}/{3 - int(edition[0])}") for name in rows["passage_id"])
    assert twins > 0.8 * first.sum()
