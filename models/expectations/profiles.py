"""Suites profiled from a version that is good: its ranges with a margin, as expectations to review and keep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from models.expectations.validation import suite_file

PROFILED = "profiled_"
"""Names of expectations that were profiled start so: a new profile replaces them and leaves the others."""

_CATEGORIES = ("language", "source", "split", "grade")
_LENGTHS = ("characters", "words")
_UNIQUE = ("content_hash", "normalized_text")
_SHARE = 0.01
"""A category of fewer rows than this share is not taken for normal."""
_MOSTLY = 0.95
_MAX_CATEGORIES = 50


def profiled_suite(suite_name: str, table: pd.DataFrame, margin: float) -> dict[str, Any]:
    """The suite of the file with its profiled expectations replaced by those of `table`.

    `margin` (0 to 1) widens each range by that share of its bounds. Profiled expectations warn; make one `critical` in
    the file where it shall stop a run. The table is that of `models.expectations.tables.table_of`.
    """
    suite = json.loads(suite_file(suite_name).read_text(encoding="utf-8"))
    kept = [
        expectation for expectation in suite["expectations"] if not expectation["meta"]["name"].startswith(PROFILED)
    ]
    return {**suite, "expectations": [*kept, *_expectations(table, margin)]}


def _expectations(table: pd.DataFrame, margin: float) -> Iterator[Mapping[str, Any]]:
    low, high = 1 - margin, 1 + margin
    rows = len(table)
    bounds = {"min_value": math.floor(rows * low), "max_value": math.ceil(rows * high)}
    yield _one("expect_table_row_count_to_be_between", "rows", f"The profiled version has {rows} rows.", bounds)
    for column in (name for name in table if rows and table[name].notna().any()):
        values = table[column].dropna()
        if column in _CATEGORIES:
            shares = values.value_counts(normalize=True)
            usual = sorted(shares[shares >= _SHARE].index.tolist())
            if len(usual) <= _MAX_CATEGORIES:
                yield _one(
                    "expect_column_values_to_be_in_set",
                    f"{column}_values",
                    f"Values of at least {_SHARE:.0%} of the rows in the profiled version.",
                    {"column": column, "value_set": usual, "mostly": _MOSTLY},
                )
        elif column in _LENGTHS:
            first, last = (float(values.quantile(share)) for share in (1 - _MOSTLY, _MOSTLY))
            yield _one(
                "expect_column_values_to_be_between",
                f"{column}_range",
                f"Nine tenths of the profiled version lie between {first:g} and {last:g}.",
                {
                    "column": column,
                    "min_value": math.floor(first * low),
                    "max_value": math.ceil(last * high),
                    "mostly": round(max(0.0, 0.9 - margin / 2), 3),
                },
            )
        elif column in _UNIQUE:
            share = values.nunique() / len(values)
            yield _one(
                "expect_column_proportion_of_unique_values_to_be_between",
                f"{column}_unique",
                f"In the profiled version {share:.3f} of the values are distinct.",
                {"column": column, "min_value": round(share * low, 3)},
            )
        elif column == "near_duplicate_of":
            share = float((values == "").mean())
            yield _one(
                "expect_column_values_to_be_in_set",
                "near_duplicates",
                f"In the profiled version {1 - share:.3f} of the sampled rows nearly repeat another one.",
                {"column": column, "value_set": [""], "mostly": round(max(0.0, share - margin), 3)},
            )
    for column in ("characters", "words", "positives", "relevant", "relevant_documents", "grade"):
        if column in table and rows:
            mean = float(table[column].mean())
            yield _one(
                "expect_column_mean_to_be_between",
                f"{column}_mean",
                f"The profiled version has a mean of {mean:.3f}.",
                {"column": column, "min_value": round(mean * low, 3), "max_value": round(mean * high, 3)},
            )


def _one(kind: str, name: str, description: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "kwargs": dict(kwargs),
        "severity": "warning",
        "meta": {"name": f"{PROFILED}{name}"},
        "description": description,
    }
