"""Offline evaluation: first stages and rerankers on the same judged queries, with intervals and paired tests.

Every number is over the judged queries that have a relevant document. What the first stage did not retrieve stays
missed for the rerankers too, so their gains are those a user would see.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.contracts.tiers import FIRST_STAGES, LEAN
from models.errors import ContractError
from models.measures.metrics import MAIN_MEASURE, collapse_to_documents, evaluate_run, mean_values
from models.measures.significance import (
    bootstrap_interval,
    max_statistic_test,
    paired_randomization_test,
    queries_to_detect,
    randomized_tukey_hsd,
    smallest_detectable_difference,
    standard_error,
)
from models.settings import EvaluationSettings

WITHOUT_MODEL = (*FIRST_STAGES, LEAN.name)
"""Systems that need no model of ours: what the models gain counts against the best of them."""
PAGE, QUALITY_COST = "report/evaluation.html", "report/quality_cost.png"
"""Files of an evaluation for people."""

SERVED = "served"
"""The tiered reranker by the answers of a loaded bundle, under the budget of a request."""

PER_QUERY_COLUMNS = ("query_id", "system", "measure", "value")

_SEED = 0
_POINT = 0.01
_SAME = 1e-9
"""Values of a query closer than this are the same: they differ by rounding only."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline on the same queries, in units of `measure`.

    `low` and `high` bound the mean difference (bootstrap); `p_value` is two-sided (paired randomization test), and
    `p_corrected` the same corrected for the comparisons made beside it, None where it stands alone; `p_gain` is
    one-sided, of the candidate being no better; `detectable` is the smallest difference that this many queries would
    show with power 0.8, and `standard_error` that of the difference.
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
    p_gain: float
    improved: int
    hurt: int
    same: int
    detectable: float
    standard_error: float
    p_corrected: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what `to_dict` wrote."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two systems of one evaluation: the mean nDCG@10 of `first` minus that of `second`.

    `low`, `high` and `p_value` are corrected for the number of pairs (randomized Tukey HSD).
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Power:
    """What an evaluation set can show of `candidate` against `baseline`.

    A difference of `detectable` is found with probability `power` by a test at level `alpha`; for a difference of one
    point, 0.01, it would take `queries_for_a_point` queries.
    """

    candidate: str
    baseline: str
    queries: int
    detectable: float
    queries_for_a_point: int
    power: float = 0.8
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class SystemResult:
    """Means of one system over `queries` queries; `low` and `high` bound the mean nDCG@10.

    `kind` is first_stage, reranker or imported; the time of what was imported is not known.
    """

    kind: str
    queries: int
    means: Mapping[str, float]
    low: float
    high: float
    seconds_per_query: float | None

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

    `gains` holds each system with a model against the best of `WITHOUT_MODEL`, the one with the highest nDCG@10 on
    these very queries: what the models add. `gains_over_first_stage` holds them, and the first stage that the
    development queries chose (`lean`), against the best of the others. The `p_corrected` of each are by the largest
    statistic among them. `pairs` are all pairs of systems, `power` is about the tiered reranker, or the last one where
    there is none. `per_query` has `query_id, system, measure, value` and is stored as a table beside the JSON.
    """

    systems: Mapping[str, SystemResult]
    best_first_stage: str
    best_without_model: str
    gains: Mapping[str, Comparison]
    gains_over_first_stage: Mapping[str, Comparison]
    confidence: float
    pairs: Sequence[Pair] = ()
    power: Power | None = None
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
            "best_without_model": self.best_without_model,
            "gains": {name: gain.to_dict() for name, gain in self.gains.items()},
            "gains_over_first_stage": {name: gain.to_dict() for name, gain in self.gains_over_first_stage.items()},
            "confidence": self.confidence,
            "pairs": [asdict(pair) for pair in self.pairs],
            "power": None if self.power is None else asdict(self.power),
            "measure": MAIN_MEASURE,
            "queries": self.queries,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], per_query: pd.DataFrame | None = None) -> EvaluationReport:
        """Read what `to_dict` wrote, with the table stored beside it where it is at hand."""
        return cls(
            systems={name: SystemResult.from_dict(result) for name, result in values["systems"].items()},
            best_first_stage=values["best_first_stage"],
            best_without_model=values["best_without_model"],
            gains=_comparisons(values["gains"]),
            gains_over_first_stage=_comparisons(values["gains_over_first_stage"]),
            confidence=values["confidence"],
            pairs=tuple(Pair(**pair) for pair in values["pairs"]),
            power=None if values["power"] is None else Power(**values["power"]),
            per_query=_empty_per_query() if per_query is None else per_query,
        )


def evaluate_systems(
    rankings: Mapping[str, pd.DataFrame],
    judgments: pd.DataFrame,
    seconds_per_query: Mapping[str, float],
    settings: EvaluationSettings,
    imported: Collection[str] = (),
) -> EvaluationReport:
    """Judge every system on the judged queries and compare what has a model with the best of what has none.

    Each ranking has `query_id, passage_id, document_id, rank, score`, rank 1 best; `judgments` are those of the
    evaluated split only, since each of its queries counts. Names in `FIRST_STAGES` are first stages, all others
    rerankers; those in `imported` come from elsewhere, and their time is not known. Raises `ContractError` when there
    is no first stage, a time is missing, or a system ranks none of the judged queries.
    """
    first_stages = [name for name in FIRST_STAGES if name in rankings]
    if not first_stages:
        raise ContractError("no first stage among the rankings", f"Give at least one of {', '.join(FIRST_STAGES)}.")
    untimed = [
        name for name in rankings if name not in imported and not np.isfinite(seconds_per_query.get(name, np.nan))
    ]
    if untimed:
        raise ContractError(f"no seconds per query for {', '.join(untimed)}", "Time every system that is evaluated.")
    tables = {name: evaluate_ranking(name, ranking, judgments) for name, ranking in rankings.items()}
    systems = {
        name: _summarize(
            table, _kind(name, imported), None if name in imported else float(seconds_per_query[name]), settings
        )
        for name, table in tables.items()
    }
    without_model = [name for name in WITHOUT_MODEL if name in rankings]
    best_first_stage, best = (
        max(names, key=lambda name: systems[name].means[MAIN_MEASURE]) for names in (first_stages, without_model)
    )
    per_query = pd.concat(list(tables.values()), ignore_index=True)
    values = {name: _values(per_query, name) for name in rankings}
    gains = _gains(values, [name for name in rankings if name not in without_model], best, settings)
    return EvaluationReport(
        systems=systems,
        best_first_stage=best_first_stage,
        best_without_model=best,
        gains=gains,
        gains_over_first_stage=_gains(
            values, [name for name in rankings if name not in first_stages], best_first_stage, settings
        ),
        confidence=settings.confidence,
        pairs=_pairs(values, settings),
        power=_power(values, gains, best),
        per_query=per_query,
    )


def compare(
    per_query_a: pd.DataFrame,
    per_query_b: pd.DataFrame,
    system: str,
    measure: str = MAIN_MEASURE,
    settings: EvaluationSettings | None = None,
    *,
    other_system: str | None = None,
    candidate: str = "candidate",
    baseline: str = "champion",
) -> Comparison:
    """Compare one system of two evaluations on the same queries: a (candidate) minus b (champion).

    Both are per-query tables of an `EvaluationReport`; b may be of an `other_system`. Raises `ContractError` when the
    queries differ.
    """
    first, second = _values(per_query_a, system, measure), _values(per_query_b, other_system or system, measure)
    if not first.index.equals(second.index):
        apart = len(first.index.symmetric_difference(second.index))
        raise ContractError(
            f"{candidate} and {baseline} were evaluated on different queries ({apart} not in both)",
            "Evaluate both on the current evaluation set.",
        )
    return _paired(first, second, candidate, baseline, measure, settings or EvaluationSettings())


def evaluate_ranking(name: str, ranking: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    """All measures of a ranking on each judged query, as system `name`: a table of `PER_QUERY_COLUMNS`.

    Raises `ContractError` when it ranks none of the judged queries.
    """
    run = collapse_to_documents(ranking)
    if set(run["query_id"].tolist()).isdisjoint(judgments["query_id"].tolist()):
        raise ContractError(
            f"{name} ranks none of the judged queries",
            "Its query ids differ from those of the judgments, or it returned nothing.",
        )
    return evaluate_run(run, judgments).assign(system=name).reindex(columns=list(PER_QUERY_COLUMNS))


def _kind(name: str, imported: Collection[str]) -> str:
    if name in imported:
        return "imported"
    return "first_stage" if name in FIRST_STAGES else "reranker"


def _summarize(table: pd.DataFrame, kind: str, seconds: float | None, settings: EvaluationSettings) -> SystemResult:
    values = table.loc[table["measure"] == MAIN_MEASURE, "value"].to_numpy()
    low, high = bootstrap_interval(values, settings.confidence, settings.resamples, _SEED)
    return SystemResult(kind, len(values), mean_values(table), low, high, seconds)


def _pairs(values: Mapping[str, pd.Series], settings: EvaluationSettings) -> tuple[Pair, ...]:
    names = list(values)
    table = np.stack([values[name].to_numpy(dtype=float) for name in names])
    p_values, margin = randomized_tukey_hsd(table, settings.confidence, settings.resamples, _SEED)
    means = table.mean(axis=1)
    return tuple(
        Pair(names[i], names[j], float(apart), float(apart - margin), float(apart + margin), float(p_values[i, j]))
        for i, j in combinations(range(len(names)), 2)
        for apart in (means[i] - means[j],)
    )


def _gains(
    values: Mapping[str, pd.Series], names: Sequence[str], baseline: str, settings: EvaluationSettings
) -> dict[str, Comparison]:
    """Each system against `baseline`, with p values corrected for there being so many."""
    if not names:
        return {}
    gains = {name: _paired(values[name], values[baseline], name, baseline, MAIN_MEASURE, settings) for name in names}
    differences = np.stack([(values[name] - values[baseline]).to_numpy() for name in names])
    corrected = max_statistic_test(differences, settings.resamples, _SEED).tolist()
    return {name: replace(gains[name], p_corrected=p) for name, p in zip(names, corrected, strict=True)}


def _power(values: Mapping[str, pd.Series], gains: Mapping[str, Comparison], best: str) -> Power | None:
    if not gains:
        return None
    name = "tiered" if "tiered" in gains else list(gains)[-1]
    differences = (values[name] - values[best]).to_numpy(dtype=float)
    needed = queries_to_detect(differences, _POINT)
    return Power(name, best, len(differences), gains[name].detectable, needed)


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
        p_gain=paired_randomization_test(a, b, settings.resamples, _SEED, "greater"),
        improved=improved,
        hurt=hurt,
        same=len(differences) - improved - hurt,
        detectable=smallest_detectable_difference(differences),
        standard_error=standard_error(differences),
    )


def _comparisons(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Comparison]:
    return {name: Comparison.from_dict(comparison) for name, comparison in values.items()}


def read_report(folder: Path) -> EvaluationReport:
    """The report that `evaluate_offline` wrote to `folder`, with its per-query table."""
    values = json.loads((folder / "report" / "evaluation.json").read_bytes())
    return EvaluationReport.from_dict(values, pd.read_parquet(folder / "per_query.parquet"))
