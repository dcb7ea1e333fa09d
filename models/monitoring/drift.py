"""Drift of queries, scores and retrieval between a reference window and a day of decisions, with Evidently.

Every column is numeric. The test of each follows the sizes of the windows: with at most 1,000 rows in the smaller one
the Kolmogorov-Smirnov test, its p value held against 0.05 divided by the number of columns (Bonferroni), because a
distance between small samples is mostly noise; above that the Wasserstein distance in standard deviations of the
reference, held against 0.1, because with many rows any difference is significant.
"""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.contracts.tiers import LAST
from models.corpus.splits import sample_by_hash
from models.errors import ContractError
from models.store.durable_files import write_atomically
from models.text.words import count_words, find_words, forms_of

if TYPE_CHECKING:
    from models.contracts.messages import Decision

COLUMNS = (
    "query_characters",
    "query_words",
    "unknown_word_share",
    "top_score",
    "mean_top10_score",
    "score_gap",
    "top_dense_score",
    "top_lexical_score",
    "share_scored_by_large",
    "latency_ms",
)
"""Compared columns; `unknown_word_share` is the share of a query's words that no (other) reference query has."""

FEATURES = ("row_id", "query", *(column for column in COLUMNS if column != "unknown_word_share"))
"""Columns of a feature table: what identifies a row, the query's text, and the numeric features (NaN where unknown)."""

SUMMARY_FILE = "drift.json"
PAGE_FILE = "report/drift.html"
"""Names of the summary and of Evidently's page in the artifact of a drift report."""

_SMALL_WINDOW = 1000
_SIGNIFICANCE = 0.05
_DISTANCE = 0.1
_REMOVED_FROM_PANDAS = "infer_dtype_from_object"


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """One column, by its `method`.

    For `ks`, `statistic` is a p value and drift is at or below `threshold`; for `wasserstein` it is a distance and
    drift is at or above it.
    """

    method: str
    statistic: float
    threshold: float
    drifted: bool


@dataclass(frozen=True, slots=True)
class DriftSummary:
    """Drift of one window. Unless `judged`, `reason` says why, `share` is None and `columns` is empty.

    `share` is the share of compared columns that drifted (0 to 1); `excluded` says why the others were not compared.
    """

    judged: bool
    reason: str
    columns: Mapping[str, ColumnDrift]
    excluded: Mapping[str, str]
    share: float | None
    reference_rows: int
    current_rows: int

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the columns that drifted."""
        return tuple(name for name, column in self.columns.items() if column.drifted)

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DriftSummary:
        """The summary that `to_dict` wrote."""
        columns = {name: ColumnDrift(**column) for name, column in values["columns"].items()}
        return cls(**{**values, "columns": columns})


def decision_features(decision: Decision) -> dict[str, Any]:
    """`FEATURES` of one decision. Without a ranking its scores are NaN, and so are the first-stage scores of texts that
    the caller brought along: retrieval did not choose them."""
    ranking = sorted(decision.ranking, key=lambda item: item["rank"])
    retrieved = decision.candidates or ranking
    counts = {"query_characters": decision.query_characters, "query_words": decision.query_words}
    return {
        "row_id": decision.decision_id,
        **_query_features(decision.query),
        **{name: count for name, count in counts.items() if count is not None},
        **_score_features([item["score"] for item in ranking]),
        "top_dense_score": _highest(item.get("dense_score") for item in retrieved),
        "top_lexical_score": _highest(item.get("lexical_score") for item in retrieved),
        "share_scored_by_large": _share_of_large([item.get("scored_by") or item.get("tier", "") for item in ranking]),
        "latency_ms": _latency_ms(decision.stage_ms),
    }


def features_from_rankings(queries: pd.DataFrame, rankings: pd.DataFrame) -> pd.DataFrame:
    """One row of `FEATURES` per query, from an evaluation.

    `queries` has `query_id` and `text`; `rankings` has `query_id`, `rank` (from 1), `score`, `dense_score` and
    `lexical_score`, and may have `tier`. Latency is unknown here. A query without ranked passages has NaN scores.
    """
    by_query: dict[str, pd.DataFrame] = {
        str(query_id): group for query_id, group in rankings.sort_values("rank").groupby("query_id", sort=False)
    }
    rows = []
    for query_id, text in zip(queries["query_id"], queries["text"], strict=True):
        ranked = by_query[query_id] if query_id in by_query else rankings.iloc[:0]
        rows.append(
            {
                "row_id": query_id,
                **_query_features(text),
                **_score_features(ranked["score"].tolist()),
                "top_dense_score": _highest(ranked["dense_score"]),
                "top_lexical_score": _highest(ranked["lexical_score"]),
                "share_scored_by_large": _share_of_large(ranked["tier"].tolist()) if "tier" in ranked else np.nan,
                "latency_ms": np.nan,
            }
        )
    return _feature_table(rows)


def drift_report(
    reference: pd.DataFrame, current: pd.DataFrame, html_path: Path, *, min_rows: int = 30, max_rows: int = 5000
) -> DriftSummary:
    """Compare two feature tables and write Evidently's page, which needs no network to be read.

    Of each table the `max_rows` with the smallest hash of `row_id` are compared. With fewer than `min_rows` rows in
    either, or no comparable column, nothing is judged and no page is written. Raises `ContractError` when a table lacks
    a column.
    """
    for name, table in (("reference", reference), ("current", current)):
        if missing := set(FEATURES) - set(table.columns):
            raise ContractError(f"the {name} features lack the columns {', '.join(sorted(missing))}")
    reference, current = (
        sample_by_hash(table, max_rows, id_column="row_id").reset_index(drop=True) for table in (reference, current)
    )
    rows = {"reference_rows": len(reference), "current_rows": len(current)}
    smaller = "reference" if len(reference) < len(current) else "current"
    if min(len(reference), len(current)) < min_rows:
        reason = f"The {smaller} window has {min(rows.values())} rows; at least {min_rows} are needed."
        return DriftSummary(False, reason, {}, {}, None, **rows)
    reference, current = _with_unknown_words(reference, current)
    excluded = _excluded(reference, current, min_rows)
    compared = [column for column in COLUMNS if column not in excluded]
    if not compared:
        return DriftSummary(False, "No column has enough values in both windows.", {}, excluded, None, **rows)
    columns = _compare(reference.loc[:, compared], current.loc[:, compared], html_path)
    share = sum(column.drifted for column in columns.values()) / len(columns)
    return DriftSummary(True, "", columns, excluded, share, **rows)


def _query_features(text: str) -> dict[str, Any]:
    return {"query": text, "query_characters": len(text), "query_words": count_words(text)}


def _score_features(scores: Sequence[float]) -> dict[str, float]:
    """Features of the scores of one ranking, best first."""
    return {
        "top_score": scores[0] if scores else np.nan,
        "mean_top10_score": float(np.mean(scores[:10])) if scores else np.nan,
        "score_gap": scores[0] - scores[1] if len(scores) > 1 else np.nan,
    }


def _highest(values: Iterable[float | None]) -> float:
    return max((float(value) for value in values if value is not None), default=np.nan)


def _share_of_large(tiers: Sequence[str]) -> float:
    return sum(tier == LAST.name for tier in tiers) / len(tiers) if tiers else np.nan


def _latency_ms(stage_ms: Mapping[str, float]) -> float:
    """The `total` stage where it was measured, else the sum of the stages."""
    if "total" in stage_ms:
        return stage_ms["total"]
    return sum(stage_ms.values()) if stage_ms else np.nan


def _feature_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(FEATURES))
    return table.astype({name: "float64" for name in FEATURES if name not in ("row_id", "query")})


def _words(text: str) -> list[str]:
    return [form for word in find_words(text) for form in forms_of(word)]


def _with_unknown_words(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add `unknown_word_share` to both tables.

    A reference query is held against the other reference queries (leave one out): against a vocabulary with its own
    words it would never have an unknown one, and every current window would look drifted.
    """
    counts = Counter(word for text in reference["query"] for word in set(_words(text)))

    def share(text: str, own: int) -> float:
        words = _words(text)
        return sum(counts[word] <= own for word in words) / len(words) if words else np.nan

    return (
        reference.assign(unknown_word_share=[share(text, 1) for text in reference["query"]]),
        current.assign(unknown_word_share=[share(text, 0) for text in current["query"]]),
    )


def _excluded(reference: pd.DataFrame, current: pd.DataFrame, min_rows: int) -> dict[str, str]:
    excluded = {}
    for column in COLUMNS:
        for name, table in (("reference", reference), ("current", current)):
            known = int(np.isfinite(table[column].to_numpy()).sum())
            if known < min_rows:
                excluded[column] = f"{known} values in the {name} window; at least {min_rows} are needed."
                break
    return excluded


def _compare(reference: pd.DataFrame, current: pd.DataFrame, html_path: Path) -> dict[str, ColumnDrift]:
    columns = list(reference.columns)
    small = min(len(reference), len(current)) <= _SMALL_WINDOW
    method, threshold = ("ks", _SIGNIFICANCE / len(columns)) if small else ("wasserstein", _DISTANCE)
    # Evidently calls what numpy, pandas and litestar deprecated; the caller cannot act on these warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _name_that_evidently_imports():
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=columns)
        snapshot = Report([DataDriftPreset(columns=columns, num_method=method, num_threshold=threshold)]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        write_atomically(html_path, snapshot.get_html_str(as_iframe=False).encode())
        statistics = {
            metric["config"]["column"]: float(metric["value"])
            for metric in snapshot.dict()["metrics"]
            if "column" in metric["config"]
        }
    return {
        column: ColumnDrift(
            method,
            statistics[column],
            threshold,
            bool(statistics[column] <= threshold if small else statistics[column] >= threshold),
        )
        for column in columns
    }


@contextmanager
def _name_that_evidently_imports() -> Iterator[None]:
    """Let Evidently 0.7 be imported with pandas 3.1, which removed a private function.

    Evidently uses it in a column type test only, which is not run here; the name is gone again after the import.
    """
    common = importlib.import_module("pandas.core.dtypes.common")
    if hasattr(common, _REMOVED_FROM_PANDAS):
        yield
        return
    setattr(common, _REMOVED_FROM_PANDAS, _removed)
    try:
        yield
    finally:
        delattr(common, _REMOVED_FROM_PANDAS)


def _removed(*_: object) -> None:
    raise NotImplementedError(f"pandas 3.1 has no {_REMOVED_FROM_PANDAS}")
