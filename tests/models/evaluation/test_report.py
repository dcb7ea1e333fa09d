from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import pytest

from models.contracts.tiers import FIRST_STAGES
from models.errors import ContractError
from models.evaluation.report import Comparison, EvaluationReport, compare, evaluate_systems
from models.measures.metrics import MEASURES
from models.measures.trec_runs import export_trec_run
from models.settings import EvaluationSettings
from models.store.durable_files import canonical_json
from tests.small_bundle import RERANKERS

SETTINGS = EvaluationSettings(resamples=1000)
QUERIES = [f"q{number:02}" for number in range(40)]
JUDGMENTS = pd.DataFrame({"query_id": QUERIES, "document_id": "gold", "grade": 1})
SECONDS = {"bm25": 0.001, "dense": 0.004, "hybrid": 0.006, "lean": 0.006, "compact": 0.1, "large": 0.8, "tiered": 0.2}


def ranking(ranks: Mapping[str, int], depth: int = 12) -> pd.DataFrame:
    """Put the relevant document of each query at the given rank; 0 leaves it out."""
    rows = []
    for query_id, gold in ranks.items():
        for rank in range(1, depth + 1):
            document = "gold" if rank == gold else f"other{rank:02}"
            rows.append((query_id, f"{document}#0", document, rank, 1.0 / rank))
    return pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank", "score"])


def constant(rank: int) -> dict[str, int]:
    return dict.fromkeys(QUERIES, rank)


@pytest.fixture(scope="module")
def rankings() -> dict[str, pd.DataFrame]:
    mixed = {query_id: 1 if number < 30 else 5 if number < 36 else 3 for number, query_id in enumerate(QUERIES)}
    return {
        "bm25": ranking(constant(6)),
        "dense": ranking(constant(3)),
        "hybrid": ranking(constant(4)),
        "lean": ranking(constant(3)),
        "compact": ranking(mixed),
        "large": ranking(constant(1)),
        "tiered": ranking(constant(2)),
    }


@pytest.fixture(scope="module")
def report(rankings: dict[str, pd.DataFrame]) -> EvaluationReport:
    return evaluate_systems(rankings, JUDGMENTS, SECONDS, SETTINGS)


def test_the_report_holds_every_measure_of_every_system(report: EvaluationReport) -> None:
    assert tuple(report.systems) == (*FIRST_STAGES, *RERANKERS)
    assert report.queries == len(QUERIES)
    assert all(set(result.means) == set(MEASURES) for result in report.systems.values())
    assert [report.systems[name].kind for name in ("hybrid", "lean")] == ["first_stage", "reranker"]
    assert report.systems["large"].means["nDCG@10"] == 1.0
    assert report.systems["dense"].means["nDCG@10"] == pytest.approx(0.5)
    assert report.systems["dense"].means["MRR@10"] == pytest.approx(1 / 3)
    assert report.systems["tiered"].seconds_per_query == 0.2
    assert len(report.per_query) == 7 * len(QUERIES) * len(MEASURES)
    assert list(report.per_query.columns) == ["query_id", "system", "measure", "value"]


def test_rerankers_are_compared_with_the_best_first_stage(report: EvaluationReport) -> None:
    assert report.best_first_stage == "dense"
    assert report.best_without_model == "dense"
    assert tuple(report.gains_over_first_stage) == RERANKERS
    assert tuple(report.gains) == ("compact", "large", "tiered"), "lean has no model that could gain"
    assert report.gains["compact"].difference == report.gains_over_first_stage["compact"].difference

    compact = report.gains["compact"]
    assert (compact.candidate, compact.baseline, compact.measure) == ("compact", "dense", "nDCG@10")
    assert (compact.improved, compact.hurt, compact.same, compact.queries) == (30, 6, 4, 40)
    at_rank_5 = 1 / np.log2(6) - 0.5
    assert compact.difference == pytest.approx((30 * 0.5 + 6 * at_rank_5) / 40)
    assert compact.difference == pytest.approx(compact.candidate_mean - compact.baseline_mean)
    assert compact.low < compact.difference < compact.high
    assert compact.p_value == pytest.approx(1 / 1001)
    assert 0 < compact.detectable < compact.difference

    lean = report.gains_over_first_stage["lean"]
    assert (lean.difference, lean.low, lean.high, lean.p_value, lean.same) == (0, 0, 0, 1.0, 40)


def test_what_the_learned_first_stage_gains_is_not_credited_to_the_models(rankings: dict[str, pd.DataFrame]) -> None:
    half = ranking(dict.fromkeys(QUERIES[:20], 1) | dict.fromkeys(QUERIES[20:], 3))
    report = evaluate_systems(rankings | {"lean": half, "tiered": half}, JUDGMENTS, SECONDS, SETTINGS)

    assert (report.best_first_stage, report.best_without_model) == ("dense", "lean")
    assert report.gains_over_first_stage["tiered"].difference == pytest.approx(0.25)
    gain = report.gains["tiered"]
    assert (gain.baseline, gain.difference, gain.p_gain, gain.same) == ("lean", 0.0, 1.0, 40)


def test_the_p_value_of_a_gain_is_one_sided(rankings: dict[str, pd.DataFrame]) -> None:
    worse = evaluate_systems(rankings | {"tiered": ranking(constant(9))}, JUDGMENTS, SECONDS, SETTINGS).gains["tiered"]

    assert worse.difference < -0.1
    assert worse.p_value < 0.01
    assert worse.p_gain > 0.99


def test_what_a_system_does_not_return_counts_zero(rankings: dict[str, pd.DataFrame]) -> None:
    half = dict.fromkeys(QUERIES[:20], 1) | dict.fromkeys(QUERIES[20:30], 0)
    report = evaluate_systems({"dense": rankings["dense"], "tiered": ranking(half)}, JUDGMENTS, SECONDS, SETTINGS)

    assert report.systems["tiered"].queries == 40
    assert report.systems["tiered"].means["nDCG@10"] == 0.5
    assert report.systems["tiered"].means["R@100"] == 0.5
    assert report.gains["tiered"].hurt == 20


def test_several_passages_of_a_document_count_once() -> None:
    rows = [("q", "other#0", "other", 1, 0.9), ("q", "other#1", "other", 2, 0.8), ("q", "gold#0", "gold", 3, 0.7)]
    table = pd.DataFrame(rows, columns=["query_id", "passage_id", "document_id", "rank", "score"])
    both = pd.concat([table, table.assign(query_id="r")])
    judgments = pd.DataFrame({"query_id": ["q", "r"], "document_id": "gold", "grade": 1})

    report = evaluate_systems({"bm25": both}, judgments, {"bm25": 0.1}, SETTINGS)

    assert report.systems["bm25"].means["MRR@10"] == 0.5


def test_arguments_are_left_as_they_were(rankings: dict[str, pd.DataFrame]) -> None:
    before = {name: table.copy() for name, table in rankings.items()}
    evaluate_systems(rankings, JUDGMENTS, SECONDS, SETTINGS)

    for name, table in rankings.items():
        pd.testing.assert_frame_equal(table, before[name])


def test_the_report_survives_json(report: EvaluationReport) -> None:
    values = json.loads(canonical_json(report.to_dict()))

    assert values["systems"]["tiered"]["nDCG@10"] == report.systems["tiered"].means["nDCG@10"]
    assert values["queries"] == 40
    assert EvaluationReport.from_dict(values) == report
    again = EvaluationReport.from_dict(values, report.per_query)
    assert compare(again.per_query, report.per_query, "tiered", settings=SETTINGS).difference == 0


def test_the_same_evaluation_gives_the_same_bytes(rankings: dict[str, pd.DataFrame], report: EvaluationReport) -> None:
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in rankings.items()}
    again = evaluate_systems(shuffled, JUDGMENTS.sample(frac=1, random_state=1), SECONDS, SETTINGS)

    assert canonical_json(again.to_dict()) == canonical_json(report.to_dict())
    pd.testing.assert_frame_equal(again.per_query, report.per_query)


def test_candidate_and_champion_are_paired_by_query_not_by_row(report: EvaluationReport) -> None:
    champion = evaluate_systems(
        {"dense": ranking(constant(3)), "tiered": ranking(constant(1))}, JUDGMENTS, SECONDS, SETTINGS
    ).per_query.sample(frac=1, random_state=0)

    comparison = compare(report.per_query, champion, "tiered", "MRR@10", SETTINGS)

    assert comparison.difference == -0.5
    assert (comparison.hurt, comparison.improved, comparison.candidate, comparison.baseline) == (
        40,
        0,
        "candidate",
        "champion",
    )
    assert comparison.measure == "MRR@10"
    assert Comparison.from_dict(json.loads(canonical_json(comparison.to_dict()))) == comparison


def test_different_queries_are_not_compared(report: EvaluationReport) -> None:
    fewer = report.per_query[report.per_query["query_id"] != "q00"]

    with pytest.raises(ContractError, match="different queries"):
        compare(report.per_query, fewer, "tiered")
    with pytest.raises(ContractError, match=r"no nDCG@10 of other"):
        compare(report.per_query, report.per_query, "other")
    with pytest.raises(ContractError, match="appears twice"):
        compare(pd.concat([report.per_query, report.per_query]), report.per_query, "tiered")


def test_unusable_input_is_refused(rankings: dict[str, pd.DataFrame]) -> None:
    with pytest.raises(ContractError, match="no first stage"):
        evaluate_systems({"tiered": rankings["tiered"]}, JUDGMENTS, SECONDS, SETTINGS)
    with pytest.raises(ContractError, match="no seconds per query for dense"):
        evaluate_systems({"dense": rankings["dense"]}, JUDGMENTS, {}, SETTINGS)
    with pytest.raises(ContractError, match="dense ranks none of the judged queries"):
        evaluate_systems({"dense": rankings["dense"]}, JUDGMENTS.assign(query_id="x"), SECONDS, SETTINGS)


def test_an_exported_run_is_read_back_by_trec_tools(tmp_path: Path, report: EvaluationReport) -> None:
    path = tmp_path / "runs" / "dense.trec"
    export_trec_run(ranking(constant(3)), path, "dense run")

    first = path.read_text(encoding="utf-8").splitlines()[0].split()
    assert first == ["q00", "Q0", "other01", "1", "12", "dense%20run"]
    measured = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10],
        [ir_measures.Qrel(query_id, "gold", 1) for query_id in QUERIES],
        ir_measures.read_trec_run(str(path)),
    )
    assert measured[ir_measures.nDCG @ 10] == pytest.approx(report.systems["dense"].means["nDCG@10"])


def test_whitespace_in_ids_does_not_break_the_run_format(tmp_path: Path) -> None:
    table = pd.DataFrame(
        [("query one", "p", "my file.pdf", 1, 1.0)], columns=["query_id", "passage_id", "document_id", "rank", "score"]
    )
    export_trec_run(table, tmp_path / "run.trec", "t")

    assert (tmp_path / "run.trec").read_text(encoding="utf-8") == "query%20one Q0 my%20file.pdf 1 1 t\n"
