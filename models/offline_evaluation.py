# pandas' stubs type a selection as Series or DataFrame.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportReturnType=false, reportGeneralTypeIssues=false
"""The steps of an offline evaluation on stored artifacts: score, evaluate, compare with the champion, time the
bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from models.artifacts import Artifact
from models.assessment import assess
from models.bundle import BUNDLE
from models.calibration import Calibration
from models.corpus import write_table
from models.engines import SIZES, load_engine
from models.evaluation import FIRST_STAGES, EvaluationReport, evaluate_systems
from models.evaluation_page import PAGE, write_evaluation_page
from models.files import canonical_json
from models.latency import summarize
from models.pair_cost import relative_cost
from models.scoring import pairs_per_query, rerank, score_candidates, seconds_per_query
from models.settings import EvaluationSettings, Settings, TiersSettings, TrainingSettings
from models.tracking import Tracking

QUALITY_COST = "report/quality_cost.png"
_PROFILED = 40

Progress = Callable[[int, int], None]


def split_of(evaluation_set: Artifact, split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Queries and judgments of one split of the evaluation set."""
    queries = evaluation_set.read_table("queries.parquet")
    queries = queries[queries["split"] == split]
    judgments = evaluation_set.read_table("judgments.parquet")
    return queries, judgments[judgments["query_id"].isin(queries["query_id"])]


def score_evaluation_set(
    candidates: pd.DataFrame,
    queries: pd.DataFrame,
    passages: pd.DataFrame,
    engines: Path,
    models: Mapping[str, Path],
    training: TrainingSettings,
    threads: int,
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write scored.parquet: the candidates of `queries` with both models' logits. Returns counts, seconds per pair, and
    what the longest pair costs in the compact model as a share of the large one's.

    `models` are the folders of `compact` and `large`, `engines` that of what computes them."""
    compact, large = (
        load_engine(engines, models[size], size, training.max_tokens, device=training.device, threads=threads)
        for size in SIZES
    )
    scored = score_candidates(candidates, queries, passages, compact, large, progress)
    write_table(scored.table, folder / "scored.parquet")
    return {
        "dagster/row_count": len(scored.table),
        "compact_cost": relative_cost(models["compact"], models["large"], training.max_tokens),
        **{f"seconds_per_pair_{n}": s for n, s in scored.seconds_per_pair.items()},
    }


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
    from models.plots import quality_cost_plot

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
    first = {name: float(candidates.summary[f"seconds_per_query_{name}"]) for name in FIRST_STAGES}
    pair = {name: float(scored_candidates.summary[f"seconds_per_pair_{name}"]) for name in ("compact", "large")}
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
        seconds_per_query(pair, first, per_query, pairs_per_query(rankings["tiered"], calibration.stopping)),
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
        facts={one.asset: one.data_version for one in made_from},
        plot=folder / QUALITY_COST,
    )
    gain = report.gains["tiered"]
    return {
        **{f"ndcg_at_10_{name}": result.means["nDCG@10"] for name, result in report.systems.items()},
        "ndcg_at_10_gain": gain.difference,
        "gain_p_value": gain.p_value,
        "best_first_stage": report.best_first_stage,
        "queries": report.queries,
    }


def read_report(folder: Path) -> EvaluationReport:
    """The report that `evaluate_offline` wrote to `folder`, with its per-query table."""
    values = json.loads((folder / "report" / "evaluation.json").read_bytes())
    return EvaluationReport.from_dict(values, pd.read_parquet(folder / "per_query.parquet"))


def log_evaluation(tracking: Tracking, artifact: Artifact) -> str:
    """Log the evaluation as an MLflow run with its plot and page; returns the run id."""
    metrics = {name: float(value) for name, value in artifact.summary.items() if isinstance(value, int | float)}
    files = [artifact.path(name) for name in (QUALITY_COST, PAGE, "report/evaluation.json")]
    tags = {"rerankops.data_version": artifact.data_version}
    return tracking.log_run(
        "offline_evaluation", params=artifact.manifest.inputs, metrics=metrics, tags=tags, files=files
    )


def evaluate_champion(
    bundle: Artifact | None,
    evaluation_set: Artifact,
    passages: Artifact,
    candidates: Artifact,
    settings: EvaluationSettings,
    folder: Path,
) -> dict[str, Any]:
    """Write champion.json and, with a champion, per_query.parquet of its `tiered` system on the current evaluation set.

    Its stored numbers are taken when evaluation set and candidates are those it was evaluated on; otherwise its models
    score the current candidates.
    """
    if bundle is None:
        (folder / "champion.json").write_bytes(canonical_json({"champion": None}))
        return {"champion": "none"}
    facts = bundle.read_json(BUNDLE)
    versions = facts["versions"]
    same = (
        versions["evaluation_set"] == evaluation_set.data_version and versions["candidates"] == candidates.data_version
    )
    if same:
        per_query = bundle.read_table("evaluation/per_query.parquet")
    else:
        bundle.verify()
        test, judgments = split_of(evaluation_set, "test")
        compact, large = (
            load_engine(bundle.folder / "engines", bundle.folder / size, size, facts["max_tokens"]) for size in SIZES
        )
        scored = score_candidates(
            candidates.read_table("candidates.parquet"),
            test,
            passages.read_table("passages.parquet"),
            compact,
            large,
        )
        calibration = Calibration.from_dict(bundle.read_json("calibration.json"))
        tiers = TiersSettings.model_validate(facts["settings"]["tiers"])
        stages = candidates.read_table("first_stage.parquet")
        hybrid = stages[(stages["system"] == "hybrid") & stages["query_id"].isin(test["query_id"])].drop(
            columns="system"
        )
        rankings = {"hybrid": hybrid, "tiered": rerank(scored.table, calibration, tiers)["tiered"]}
        per_query = evaluate_systems(rankings, judgments, dict.fromkeys(rankings, 0.0), settings).per_query
    write_table(per_query[per_query["system"] == "tiered"].reset_index(drop=True), folder / "per_query.parquet")
    (folder / "champion.json").write_bytes(
        canonical_json(
            {"champion": bundle.data_version, "evaluation_set": evaluation_set.data_version, "rescored": not same}
        )
    )
    return {"champion": bundle.data_version, "rescored": int(not same)}


def profile_bundle(
    bundle: Artifact, settings: Settings, folder: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Load the bundle, reproduce its golden scores, and time rerank requests one after the other; writes latency.json.

    A request is retrieval and ranking of `serving.candidates` passages inside `tiers.budget_ms`.
    """
    from models.serving import load_bundle

    started = time.perf_counter()
    loaded = load_bundle(bundle, serving=settings.serving)
    load_seconds = time.perf_counter() - started
    golden = loaded.reproduce_golden(settings.gate.max_golden_difference)
    queries = [entry["query"] for entry in loaded.golden] or ["how is this used"]
    samples, degraded = [], 0
    for place in range(_PROFILED):
        query = queries[place % len(queries)]
        began = time.perf_counter()
        found = loaded.retrieve(query, settings.serving.candidates, None)
        degraded += loaded.rank_candidates(query, found, settings.tiers.budget_ms).degraded
        samples.append(1000 * (time.perf_counter() - began))
        if progress is not None:
            progress(place + 1, _PROFILED)
    summary = summarize(samples)
    loaded.close()
    facts = {
        **summary.to_dict(),
        "degraded_share": degraded / _PROFILED,
        "load_seconds": load_seconds,
        "golden_queries": golden.queries,
        "golden_max_difference": golden.max_difference,
        "golden_order_equal": golden.order_equal,
    }
    (folder / "latency.json").write_bytes(canonical_json(facts))
    return facts
