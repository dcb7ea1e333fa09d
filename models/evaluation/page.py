"""An evaluation as one HTML page that stands alone: no script, nothing loaded from elsewhere, every text escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.evaluation.assessment import JUDGED, Assessment
from models.evaluation.query_kinds import PSEUDO_ONLY
from models.evaluation.slices import worst
from models.measures.metrics import MAIN_MEASURE, MEASURES, collapse_to_documents
from models.store.durable_files import write_atomically

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_QUERIES = 8
_DOCUMENTS = 5
_TEXT_CHARACTERS = 180
_SAME = 1e-9


def write_evaluation_page(
    path: Path,
    assessment: Assessment,
    queries: pd.DataFrame,
    judgments: pd.DataFrame,
    passages: pd.DataFrame,
    *,
    title: str,
    facts: Mapping[str, object],
    plot: Path | None = None,
) -> None:
    """Write the page: tables, plots, slices, and the worst and the most improved queries side by side.

    `facts` say what was evaluated; `plot` is a PNG. `passages` has `passage_id, document_id, title, text`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = assessment.to_dict()
    report = assessment.report
    gains = [gain.to_dict() for gain in (*report.gains.values(), *report.gains_over_first_stage.values())]
    behind = [gain for stage in values["by_first_stage"] for gain in stage["gains"].values()]
    apart = _differences(assessment)
    losers, winners = apart[apart["difference"] < -_SAME], apart[apart["difference"] > _SAME][::-1]
    show = _Examples(assessment, queries, judgments, passages)
    page = environment.get_template("evaluation.html").render(
        title=title,
        facts=facts,
        report=values,
        power=values["power"],
        headline=values["gains"].get(JUDGED),
        judged=JUDGED,
        measures=MEASURES,
        best=max(report.systems, key=lambda name: report.systems[name].means[MAIN_MEASURE]),
        names=list(report.systems),
        kinds=values["by_kind"],
        warning=PSEUDO_ONLY if values["pseudo_only"] else "",
        pairs=_both_ways(values["pairs"]),
        by_first_stage=values["by_first_stage"],
        slices=values["slices"],
        worst=[part.to_dict() for part in worst(assessment.slices)],
        bars=apart["difference"].tolist()[::-1],
        losers=show.of(losers.head(_QUERIES)),
        winners=show.of(winners.head(_QUERIES)),
        plot=None if plot is None else base64.b64encode(plot.read_bytes()).decode(),
        gain_scale=_scale(gains),
        stage_scale=_scale(behind),
        slice_scale=_scale(values["slices"]),
        place=lambda value, scale: f"{50 + 50 * value / scale:.2f}",
        width=lambda low, high, scale: f"{50 * (high - low) / scale:.2f}",
    )
    write_atomically(path, page.encode("utf-8"))


def _differences(assessment: Assessment) -> pd.DataFrame:
    """`baseline`, `candidate` and `difference` of each query by query id, the greatest loss first."""
    per_query = assessment.report.per_query
    main = per_query[per_query["measure"] == MAIN_MEASURE]
    table = main.pivot(index="query_id", columns="system", values="value")
    differences = pd.DataFrame({"baseline": table[assessment.report.best_without_model], "candidate": table[JUDGED]})
    differences["difference"] = differences["candidate"] - differences["baseline"]
    return differences.sort_values(["difference", "candidate"], kind="stable")


def _both_ways(pairs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    comparisons = {}
    for pair in pairs:
        comparisons[pair["first"], pair["second"]] = dict(pair)
        comparisons[pair["second"], pair["first"]] = {**pair, "difference": -pair["difference"]}
    return comparisons


def _scale(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest distance from 0 that the intervals of `rows` reach."""
    return 1.05 * max((max(abs(row["low"]), abs(row["high"])) for row in rows), default=1.0) or 1.0


class _Examples:
    """Queries with the documents that both systems put first."""

    def __init__(
        self, assessment: Assessment, queries: pd.DataFrame, judgments: pd.DataFrame, passages: pd.DataFrame
    ) -> None:
        self._texts = dict(zip(queries["query_id"], queries["text"], strict=True))
        self._judged = dict(iter(judgments[judgments["grade"] > 0].groupby("query_id")))
        self._passages = passages
        self._rankings = {name: assessment.rankings[name] for name in (assessment.report.best_without_model, JUDGED)}

    def of(self, values: pd.DataFrame) -> list[dict[str, Any]]:
        """What the page shows of the queries of `values`, in its order."""
        ids = values.index.tolist()
        runs = {
            name: dict(iter(_of_queries(ranking, ids).groupby("query_id"))) for name, ranking in self._rankings.items()
        }
        shown = [
            self._example(query_id, baseline, candidate, {name: run.get(query_id) for name, run in runs.items()})
            for query_id, baseline, candidate in zip(ids, values["baseline"], values["candidate"], strict=True)
        ]
        wanted = {document["document_id"] for example in shown for _, ranked in example["sides"] for document in ranked}
        wanted |= {document["document_id"] for example in shown for document in example["missed"]}
        self._describe(shown, wanted)
        return shown

    def _example(
        self, query_id: str, baseline: float, candidate: float, runs: Mapping[str, pd.DataFrame | None]
    ) -> dict[str, Any]:
        judged = self._judged[query_id]
        grades = dict(zip(judged["document_id"], judged["grade"].astype(int), strict=True))
        ordered = {name: [] if run is None else run["document_id"].tolist() for name, run in runs.items()}
        sides = [
            (
                name,
                [
                    {"document_id": document_id, "grade": grades.get(document_id, 0)}
                    for document_id in documents[:_DOCUMENTS]
                ],
            )
            for name, documents in ordered.items()
        ]
        missed = [
            {
                "document_id": document_id,
                "grade": grade,
                "places": [
                    f"{name} has it {_ordinal(documents.index(document_id))}"
                    if document_id in documents
                    else f"{name} lacks it"
                    for name, documents in ordered.items()
                ],
            }
            for document_id, grade in sorted(grades.items(), key=lambda item: (-item[1], item[0]))
            if any(document_id not in documents[:_DOCUMENTS] for documents in ordered.values())
        ]
        text = self._texts[query_id]
        return {"text": text, "baseline": baseline, "candidate": candidate, "sides": sides, "missed": missed[:5]}

    def _describe(self, shown: Sequence[dict[str, Any]], wanted: set[str]) -> None:
        rows = self._passages[self._passages["document_id"].isin(wanted)].drop_duplicates("document_id")
        known = dict(zip(rows["document_id"], zip(rows["title"], rows["text"], strict=True), strict=True))
        for example in shown:
            documents = [document for _, ranked in example["sides"] for document in ranked] + example["missed"]
            for document in documents:
                title, text = known.get(document["document_id"], ("", ""))
                document["title"] = title
                document["text"] = text if len(text) <= _TEXT_CHARACTERS else f"{text[:_TEXT_CHARACTERS]}…"


def _of_queries(ranking: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    return collapse_to_documents(ranking[ranking["query_id"].isin(ids)])


def _ordinal(index: int) -> str:
    return f"at {index + 1}"
