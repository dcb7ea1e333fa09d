"""Offline evaluation: first stages and rerankers on the same judged queries, with intervals and paired tests.

Every number is over the judged queries that have a relevant document. What the first stage did not retrieve stays
missed for the rerankers too, so their gains are those a user would see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from models.errors import ContractError
from models.files import write_atomically
from models.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run, mean_values
from models.settings import EvaluationSettings
from models.significance import bootstrap_interval, paired_randomization_test, smallest_detectable_difference

FIRST_STAGES = ("bm25", "dense", "hybrid")
RERANKERS = ("lean", "compact", "large", "tiered")
PER_QUERY_COLUMNS = ("query_id", "system", "measure", "value")

_SEED = 0
_SAME = 1e-9
"""Values of a query closer than this are the same: they differ by rounding only."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline on the same queries, in units of `measure`.

    `low` and `high` bound the mean difference (bootstrap); `p_value` is two-sided (paired randomization test);
    `detectable` is the smallest difference that this many queries would show with power 0.8.
    """

    candidate: str
    baseline: str
    measure: str
    queries: int
    candidate_mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    p_value: float
    improved: int
    hurt: int
    same: int
    detectable: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class SystemResult:
    """Means of one system over `queries` queries; `low` and `high` bound the mean nDCG@10."""

    kind: str
    queries: int
    means: Mapping[str, float]
    low: float
    high: float
    seconds_per_query: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values, each measure under its own name."""
        return {
            **self.means,
            "interval": [self.low, self.high],
            "kind": self.kind,
            "queries": self.queries,
            "seconds_per_query": self.seconds_per_query,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SystemResult:
        """Read what `to_dict` wrote."""
        own = ("interval", "kind", "queries", "seconds_per_query")
        means = {name: value for name, value in values.items() if name not in own}
        low, high = values["interval"]
        return cls(values["kind"], values["queries"], means, low, high, values["seconds_per_query"])


def _empty_per_query() -> pd.DataFrame:
    return pd.DataFrame({"query_id": [], "system": [], "measure": [], "value": []}).astype(
        {"query_id": "str", "system": "str", "measure": "str", "value": "float64"}
    )


@dataclass(frozen=True)
class EvaluationReport:
    """All systems on one evaluation set.

    `gains` holds each reranker against the best first stage, the one with the highest nDCG@10 on these very queries:
    the hardest baseline. `per_query` has `query_id, system, measure, value` and is stored as a table beside the JSON.
    """

    systems: Mapping[str, SystemResult]
    best_first_stage: str
    gains: Mapping[str, Comparison]
    confidence: float
    per_query: pd.DataFrame = field(default_factory=_empty_per_query, compare=False, repr=False)

    @property
    def queries(self) -> int:
        """Queries that every system was judged on."""
        return self.systems[self.best_first_stage].queries

    def to_dict(self) -> dict[str, Any]:
        """JSON values without the per-query table."""
        return {
            "systems": {name: result.to_dict() for name, result in self.systems.items()},
            "best_first_stage": self.best_first_stage,
            "gains": {name: gain.to_dict() for name, gain in self.gains.items()},
            "confidence": self.confidence,
            "measure": MAIN_MEASURE,
            "queries": self.queries,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], per_query: pd.DataFrame | None = None) -> EvaluationReport:
        """Read what `to_dict` wrote, with the table stored beside it where it is at hand."""
        return cls(
            systems={name: SystemResult.from_dict(result) for name, result in values["systems"].items()},
            best_first_stage=values["best_first_stage"],
            gains={name: Comparison.from_dict(gain) for name, gain in values["gains"].items()},
            confidence=values["confidence"],
            per_query=_empty_per_query() if per_query is None else per_query,
        )


def evaluate_systems(
    rankings: Mapping[str, pd.DataFrame],
    judgments: pd.DataFrame,
    seconds_per_query: Mapping[str, float],
    settings: EvaluationSettings,
) -> EvaluationReport:
    """Judge every system on the judged queries and compare the rerankers with the best first stage.

    Each ranking has `query_id, passage_id, document_id, rank, score`, rank 1 best; `judgments` are those of the
    evaluated split only, since each of its queries counts. Names in `FIRST_STAGES` are first stages, all others
    rerankers. Raises `ContractError` when there is no first stage, a time is missing, or a system ranks none of the
    judged queries.
    """
    first_stages = [name for name in FIRST_STAGES if name in rankings]
    if not first_stages:
        raise ContractError("no first stage among the rankings", f"Give at least one of {', '.join(FIRST_STAGES)}.")
    untimed = [name for name in rankings if not np.isfinite(seconds_per_query.get(name, np.nan))]
    if untimed:
        raise ContractError(f"no seconds per query for {', '.join(untimed)}", "Time every system that is evaluated.")
    tables = {name: _evaluate_ranking(name, ranking, judgments) for name, ranking in rankings.items()}
    systems = {
        name: _summarize(name, table, float(seconds_per_query[name]), settings) for name, table in tables.items()
    }
    best = max(first_stages, key=lambda name: systems[name].means[MAIN_MEASURE])
    per_query = pd.concat(
        [table.assign(system=name).reindex(columns=list(PER_QUERY_COLUMNS)) for name, table in tables.items()],
        ignore_index=True,
    )
    gains = {
        name: _paired(_values(per_query, name), _values(per_query, best), name, best, MAIN_MEASURE, settings)
        for name in rankings
        if name not in FIRST_STAGES
    }
    return EvaluationReport(systems, best, gains, settings.confidence, per_query)


def compare(
    per_query_a: pd.DataFrame,
    per_query_b: pd.DataFrame,
    system: str,
    measure: str = MAIN_MEASURE,
    settings: EvaluationSettings | None = None,
    *,
    candidate: str = "candidate",
    baseline: str = "champion",
) -> Comparison:
    """Compare one system of two evaluations on the same queries: a (candidate) minus b (champion).

    Both are per-query tables of an `EvaluationReport`. Raises `ContractError` when the queries differ.
    """
    first, second = _values(per_query_a, system, measure), _values(per_query_b, system, measure)
    if not first.index.equals(second.index):
        apart = len(first.index.symmetric_difference(second.index))
        raise ContractError(
            f"{candidate} and {baseline} were evaluated on different queries ({apart} not in both)",
            "Evaluate both on the current evaluation set.",
        )
    return _paired(first, second, candidate, baseline, measure, settings or EvaluationSettings())


def export_trec_run(ranking: pd.DataFrame, path: Path, tag: str) -> None:
    """Write the documents of a ranking as a TREC run file (`query Q0 document rank score tag`), as trec_eval reads it.

    Whitespace in an id or in the tag, which the format cannot hold, is percent-encoded. Scores are whole numbers that
    fall with the rank, so that no tool reorders ties.
    """
    run = collapse_to_documents(ranking)
    columns = [
        [_without_whitespace(query_id) for query_id in run["query_id"].tolist()],
        [_without_whitespace(document_id) for document_id in run["document_id"].tolist()],
        (run.groupby("query_id", sort=False).cumcount() + 1).tolist(),
        run["score"].astype(int).tolist(),
    ]
    name = _without_whitespace(tag)
    lines = [
        f"{query_id} Q0 {document_id} {rank} {score} {name}\n"
        for query_id, document_id, rank, score in zip(*columns, strict=True)
    ]
    write_atomically(path, "".join(lines).encode())


def _evaluate_ranking(name: str, ranking: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    run = collapse_to_documents(ranking)
    if set(run["query_id"].tolist()).isdisjoint(judgments["query_id"].tolist()):
        raise ContractError(
            f"{name} ranks none of the judged queries",
            "Its query ids differ from those of the judgments, or it returned nothing.",
        )
    return evaluate_run(run, judgments)


def _summarize(name: str, table: pd.DataFrame, seconds: float, settings: EvaluationSettings) -> SystemResult:
    values = table.loc[table["measure"] == MAIN_MEASURE, "value"].to_numpy()
    low, high = bootstrap_interval(values, settings.confidence, settings.resamples, _SEED)
    kind = "first_stage" if name in FIRST_STAGES else "reranker"
    return SystemResult(kind, len(values), mean_values(table), low, high, seconds)


def _values(per_query: pd.DataFrame, system: str, measure: str = MAIN_MEASURE) -> pd.Series:
    chosen = (per_query["system"] == system).to_numpy() & (per_query["measure"] == measure).to_numpy()
    if not chosen.any():
        raise ContractError(f"no {measure} of {system} in the per-query table", "Run the offline evaluation again.")
    values = pd.Series(
        per_query["value"].to_numpy(dtype=float)[chosen], index=per_query["query_id"].to_numpy()[chosen]
    ).sort_index()
    if values.index.has_duplicates:
        raise ContractError(f"{measure} of {system} appears twice for one query", "Run the offline evaluation again.")
    return values


def _paired(
    first: pd.Series, second: pd.Series, candidate: str, baseline: str, measure: str, settings: EvaluationSettings
) -> Comparison:
    a, b = first.to_numpy(dtype=float), second.to_numpy(dtype=float)
    differences = a - b
    low, high = bootstrap_interval(differences, settings.confidence, settings.resamples, _SEED)
    improved, hurt = int((differences > _SAME).sum()), int((differences < -_SAME).sum())
    return Comparison(
        candidate=candidate,
        baseline=baseline,
        measure=measure,
        queries=len(differences),
        candidate_mean=float(a.mean()),
        baseline_mean=float(b.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=paired_randomization_test(a, b, settings.resamples, _SEED),
        improved=improved,
        hurt=hurt,
        same=len(differences) - improved - hurt,
        detectable=smallest_detectable_difference(differences),
    )


def _without_whitespace(text: str) -> str:
    return "".join(quote(character) if character.isspace() else character for character in text)
