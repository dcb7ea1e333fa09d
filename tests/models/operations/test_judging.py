"""Which queries are judged, what the judged ones say of all, and that nothing judged is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.errors import ContractError, SourceError
from models.operations.judging import (
    Draw,
    RankedQuery,
    differences_of,
    disagreement,
    draw,
    estimate,
    keep,
    query_name,
    rank_queries,
    read_grades,
    read_queries,
)
from models.serving.loaded_bundle import LoadedBundle
from tests.small_bundle import KEY_QUESTION, QUESTION


def ranked(number: int, first: str, tiered: str, apart: float = 1.0) -> RankedQuery:
    """A query whose documents have names of one letter."""
    shown = {name: ("", f"text of {name}") for name in sorted({*first, *tiered})}
    return RankedQuery(f"q{number}", f"query {number}", tuple(first), tuple(tiered), shown, apart)


def test_a_query_is_a_line_once(tmp_path: Path) -> None:
    lines = tmp_path / "queries.txt"
    lines.write_bytes("\ufeffhow?\n\n  why?  \nhow?\n".encode())
    assert read_queries(lines) == ["how?", "why?"]
    rows = tmp_path / "queries.jsonl"
    rows.write_text('{"text": "how?"}\n{"query": "why?"}\n')
    with pytest.raises(SourceError, match=r"queries\.jsonl:2 is no query"):
        read_queries(rows)
    lines.write_bytes(b"how?\n\xff\n")
    with pytest.raises(SourceError, match=r"queries\.txt:2 is no query"):
        read_queries(lines)
    lines.write_text("\n")
    with pytest.raises(SourceError, match="0 queries"):
        read_queries(lines)
    with pytest.raises(SourceError, match="cannot be read"):
        read_queries(tmp_path / "nowhere.txt")


def test_rankings_differ_by_what_an_exchange_of_a_likely_answer_costs() -> None:
    assert disagreement("ab", "ab", {"a": 0.9, "b": 0.1}) == 0
    # The likely answer falls from rank 1, whose gain is 1, to rank 2, whose gain is 1 / log2(3).
    moved = 1 - 1 / np.log2(3)
    assert disagreement("ab", "ba", {"a": 0.9, "b": 0.1}) == pytest.approx(moved)
    assert disagreement("a", "b", {"a": 0.5, "b": 0.5}) == pytest.approx(1)
    assert disagreement("abc", "acb", {"a": 1.0, "b": 0.0, "c": 0.0}) == 0


def test_a_difference_is_ndcg_and_queries_that_agree_count_as_nothing() -> None:
    queries = [ranked(0, "ab", "ba"), ranked(1, "ab", "ba"), ranked(2, "ab", "ab", 0), ranked(3, "ab", "ab", 0)]
    drawn = draw(queries, 9)
    assert {item.query.query_id for item in drawn} == {"q0", "q1"}
    assert [item.probability for item in drawn] == [1, 1]
    lost = 1 / np.log2(3) - 1
    result = estimate(queries, drawn, differences_of(queries, {"q0": {"a": 1}, "q1": {"a": 1}}))
    assert (result.queries, result.differing, result.judged) == (4, 2, 2)
    assert result.difference == pytest.approx(lost / 2)
    assert (result.low, result.high) == pytest.approx((lost / 2, lost / 2))
    nothing = estimate(queries, drawn, differences_of(queries, {"q0": {}, "q1": {"a": 0, "b": 0}}))
    assert nothing.difference == 0, "where nothing shown is relevant, neither ranking is better"
    assert estimate(queries, drawn, differences_of(queries, {"q0": {"a": 1}})).difference is None
    assert draw(queries[2:], 9) == []


def worlds(seed: int) -> tuple[list[RankedQuery], dict[str, float]]:
    """300 queries, and the difference of each: the tiers mend few, mostly where the rankings are far apart."""
    generator = np.random.default_rng(seed)
    queries: list[RankedQuery] = []
    grades: dict[str, dict[str, int]] = {}
    for number in range(300):
        kind = generator.uniform()
        if kind < 0.6:
            queries.append(ranked(number, "abc", "abc", 0.0))
        elif kind < 0.85:
            queries.append(ranked(number, "abc", "acb", 0.02))
        else:
            queries.append(ranked(number, "abc", "cab", 0.4))
        grades[f"q{number}"] = {"c": 1} if generator.uniform() < 0.7 else {"a": 1}
    return queries, differences_of(queries, grades)


def test_the_estimate_is_right_on_average_and_closer_than_that_of_queries_drawn_evenly() -> None:
    queries, differences = worlds(0)
    everything = [Draw(query, 1.0) for query in queries]
    truth = estimate(queries, everything, differences, resamples=100).difference
    assert truth is not None
    errors, covered = {}, 0
    for evenly in (False, True):
        results = [
            estimate(queries, draw(queries, 40, seed=seed, evenly=evenly), differences, resamples=200)
            for seed in range(60)
        ]
        values = np.array([result.difference for result in results], dtype=float)
        errors[evenly] = float(np.sqrt(np.mean((values - truth) ** 2)))
        assert abs(values.mean() - truth) < 3 * values.std() / np.sqrt(len(values)) + 1e-9
        if not evenly:
            lows, highs = (
                np.array([getattr(result, end) for result in results], dtype=float) for end in ("low", "high")
            )
            covered = int(((lows <= truth) & (truth <= highs)).sum())
    assert errors[False] < 0.6 * errors[True]
    assert covered >= 50, "of 60 intervals at 95 %"


def test_a_person_who_stops_has_judged_a_sample() -> None:
    queries, differences = worlds(1)
    drawn = draw(queries, 40, seed=3)
    half = [item.query.query_id for item in drawn[: len(drawn) // 2]]
    part = estimate(queries, drawn, {name: differences[name] for name in half})
    whole = estimate(queries, drawn, differences)
    assert (part.judged, whole.judged) == (len(half), len(drawn))
    assert part.low is not None
    assert part.high is not None
    assert whole.difference is not None
    assert part.low <= whole.difference <= part.high
    assert part.high - part.low > 0
    assert draw(queries, 40, seed=3) == drawn


def test_what_was_judged_is_kept_beside_other_rows_and_judged_anew_it_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"query_id": "mine", "text": "my own"}\n')
    (folder / "judgments.jsonl").write_text('{"query_id": "mine", "document_id": "x", "grade": 1}\n')
    query = ranked(7, "ab", "ba")
    keep(folder, query, {"a": 2})
    keep(folder, query, {"b": 1})
    assert read_grades(folder) == {"mine": {"x": 1}, "q7": {"a": 0, "b": 1}}
    queries = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    assert queries == [
        {"query_id": "mine", "text": "my own"},
        {"query_id": "q7", "text": "query 7", "split": "test"},
    ]
    with pytest.raises(ContractError, match="z was not shown"):
        keep(folder, query, {"z": 1})
    (folder / "judgments.jsonl").write_text("{")
    with pytest.raises(SourceError, match=r"judgments\.jsonl:1 is not JSON"):
        read_grades(folder)


@pytest.mark.heavy
def test_both_rankings_are_those_of_the_service(loaded: LoadedBundle) -> None:
    told: list[tuple[int, int]] = []
    first, second = rank_queries(loaded, [QUESTION, KEY_QUESTION], 8, lambda *counts: told.append(counts))
    assert told == [(1, 2), (2, 2)]
    assert first.query_id == query_name(QUESTION)
    retrieved = loaded.retrieve(QUESTION, 8, None)
    tiered = [retrieved[item.index].document_id for item in loaded.rank_candidates(QUESTION, retrieved, 1e9).items]
    assert list(first.tiered) == list(dict.fromkeys(tiered))[:10]
    assert set(first.shown) == {*first.first_stage, *first.tiered}
    assert list(first.shown) not in (list(first.first_stage), list(first.tiered)), "the order tells nothing"
    assert first.disagreement > 0
    assert "key" in second.shown, "whoever may read it"
