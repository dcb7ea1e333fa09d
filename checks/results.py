"""The one place where findings become check results, with the same metadata keys whether they pass or fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from models.release.blocking_checks import Finding
from models.text.markdown import table_lines

_MAX_EXAMPLES = 20
_MAX_CHARACTERS = 200


def check_result(
    passed: bool,
    description: str,
    *,
    value: float | None,
    threshold: float,
    violations: int = 0,
    judged: bool = True,
    examples: Sequence[Mapping[str, Any]] = (),
    report: Path | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """A check result that can be compared over time.

    `value` is the measured number (None when nothing could be measured) and `threshold` its limit, `violations` how
    many rows or expectations broke the rule, `judged` whether there was enough to judge, `examples` rows to show (the
    first 20), `report` a page with everything.
    """
    return dg.AssetCheckResult(
        passed=passed,
        severity=severity,
        description=description,
        metadata={
            "value": dg.MetadataValue.null() if value is None else dg.MetadataValue.float(float(value)),
            "threshold": dg.MetadataValue.float(float(threshold)),
            "violations": dg.MetadataValue.int(violations),
            "judged": dg.MetadataValue.bool(judged),
            "examples": dg.MetadataValue.md(markdown_table(examples)),
            "report": dg.MetadataValue.null() if report is None else dg.MetadataValue.path(str(report)),
        },
    )


def result_of(finding: Finding, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR) -> dg.AssetCheckResult:
    """The check result of a finding."""
    return check_result(
        finding.passed,
        finding.description,
        value=finding.value,
        threshold=finding.threshold,
        violations=finding.violations,
        examples=finding.examples,
        report=finding.report,
        severity=severity,
    )


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a markdown table with the columns of all of them, and how many were left out; `none` without rows."""
    if not rows:
        return "none"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "")) for name in columns] for row in rows[:_MAX_EXAMPLES]]
    table = "\n".join(table_lines(columns, cells))
    left_out = len(rows) - _MAX_EXAMPLES
    return f"{table}\n\n{left_out} more" if left_out > 0 else table


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    if len(text) > _MAX_CHARACTERS:
        text = text[: _MAX_CHARACTERS - 1] + "…"
    return text.replace("\\", "\\\\").replace("<", "&lt;")
