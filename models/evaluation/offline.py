"""The offline evaluation: every system on the test queries, as tables, a plot and a page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from models.cascade.calibration import Calibration
from models.cascade.offline import pairs_per_query, rerank
from models.evaluation.assessment import assess
from models.evaluation.evaluation_set import split_of
from models.evaluation.page import write_evaluation_page
from models.evaluation.query_kinds import pseudo_only
from models.evaluation.report import PAGE, QUALITY_COST
from models.evaluation.scored_candidates import seconds_per_pair
from models.evaluation.steps import OFFLINE_EVALUATION
from models.measures.query_seconds import first_stage_seconds, system_seconds
from models.settings import EvaluationSettings, Settings, TiersSettings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.durable_files import canonical_json
from models.store.tables import write_table


def make_offline_evaluation(
    store: ArtifactStore,
    settings: Settings,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    scored_candidates: Artifact,
    score_calibration: Artifact,
) -> Artifact:
    """The evaluation of every system on the test queries."""
    inputs = (evaluation_set, passages, candidates, scored_candidates, score_calibration)
    build = partial(evaluate_offline, *inputs, settings.evaluation, settings.tiers)
    return OFFLINE_EVALUATION.get_or_create(store, settings, build, inputs=inputs)


def evaluate_offline(
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    scored_candidates: Artifact,
    score_calibration: Artifact,
    settings: EvaluationSettings,
    tiers: TiersSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write evaluation.json, per_query.parquet, rankings.parquet, the plot and the page; returns the numbers that are
    watched."""
    from models.evaluation.plots import quality_cost_plot

    test, judgments = split_of(evaluation_set, "test")
    scored = scored_candidates.read_table("scored.parquet")
    scored = scored[scored["query_id"].isin(test["query_id"])]
    calibration = Calibration.from_dict(score_calibration.read_json("calibration.json"))
    stages = candidates.read_table("first_stage.parquet")
    stages = stages[stages["query_id"].isin(test["query_id"])]
    rankings = {
        **{str(name): rows.drop(columns="system") for name, rows in stages.groupby("system")},
        **rerank(scored, calibration, tiers),
    }
    per_query = len(scored) / max(len(test), 1)
    first = first_stage_seconds(candidates.summary)
    pair = seconds_per_pair(scored_candidates)
    texts = passages.read_table("passages.parquet", ["passage_id", "document_id", "title", "text", "source"])
    assessment = assess(
        rankings,
        stages,
        scored,
        test,
        judgments,
        texts,
        calibration,
        tiers,
        system_seconds(pair, first, per_query, pairs_per_query(rankings["tiered"], calibration.early_exit)),
        int(scored.groupby("query_id").size().max()),
        settings,
    )
    report = assessment.report
    write_table(report.per_query, folder / "per_query.parquet")
    table = pd.concat([ranking.assign(system=name) for name, ranking in rankings.items()], ignore_index=True)
    write_table(table, folder / "rankings.parquet")
    (folder / "report").mkdir()
    # Times vary from run to run, so the report does not decide the data version; quality does, through the tables.
    (folder / "report" / "evaluation.json").write_bytes(canonical_json(assessment.to_dict()))
    quality_cost_plot(report, folder / QUALITY_COST)
    made_from = (evaluation_set, passages, candidates, scored_candidates, score_calibration)
    write_evaluation_page(
        folder / PAGE,
        assessment,
        test,
        judgments,
        texts,
        title="Offline evaluation",
        facts={artifact.asset: artifact.data_version for artifact in made_from},
        plot=folder / QUALITY_COST,
    )
    gain = report.gains["tiered"]
    return {
        **{f"ndcg_at_10_{name}": result.means["nDCG@10"] for name, result in report.systems.items()},
        "ndcg_at_10_gain": gain.difference,
        "ndcg_at_10_gain_over_first_stage": report.gains_over_first_stage["tiered"].difference,
        "gain_p_value": gain.p_gain,
        "best_first_stage": report.best_first_stage,
        "best_without_model": report.best_without_model,
        "queries": report.queries,
        "judged_on": "pseudo-queries only" if pseudo_only(assessment.by_kind) else "judged queries",
    }
