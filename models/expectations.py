"""Expectations on whole tables, with Great Expectations: counts, shares and distributions that no single row can break.

Suites are data in `expectation_suites/`, in Great Expectations' own JSON format. `critical` expectations stop what is
downstream, `warning` ones are shown. The row-by-row rules are in `models.contracts`.
"""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.errors import ContractError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult

SUITES = Path(__file__).resolve().parent / "expectation_suites"

_MAX_EXAMPLES = 10
_MAX_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class ExpectationOutcome:
    """Result of one expectation.

    `observed` is what was found and `expected` the bounds, both as short text; `unexpected_count` is the number of rows
    outside (0 for expectations on the table as a whole); `examples` names some of them by row id and value.
    """

    name: str
    description: str
    column: str
    severity: str
    success: bool
    observed: str
    expected: str
    unexpected_count: int
    examples: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExpectationReport:
    """Results of one suite on one table, in the suite's order."""

    suite: str
    rows: int
    results: tuple[ExpectationOutcome, ...]

    @property
    def success(self) -> bool:
        """Whether all expectations held, the warning ones too."""
        return all(outcome.success for outcome in self.results)

    @property
    def statistics(self) -> dict[str, float]:
        """`evaluated`, `successful`, `failed_critical`, `failed_warning` (counts) and `success_share` (0 to 1)."""
        failed = [outcome for outcome in self.results if not outcome.success]
        critical = sum(outcome.severity == "critical" for outcome in failed)
        return {
            "evaluated": len(self.results),
            "successful": len(self.results) - len(failed),
            "failed_critical": critical,
            "failed_warning": len(failed) - critical,
            "success_share": 1 - len(failed) / max(1, len(self.results)),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `from_dict` reads."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExpectationReport:
        """The report that `to_dict` wrote."""
        outcomes = (ExpectationOutcome(**{**item, "examples": tuple(item["examples"])}) for item in values["results"])
        return cls(values["suite"], values["rows"], tuple(outcomes))


def suite_file(suite_name: str) -> Path:
    """The data file of a suite. Raises `ContractError` when there is none."""
    path = SUITES / f"{suite_name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SUITES.glob("*.json")))
        raise ContractError(f"there is no expectation suite {suite_name!r}", f"Suites: {known}.")
    return path


def validate(table: pd.DataFrame, suite_name: str, parameters: Mapping[str, Any]) -> ExpectationReport:
    """Run a suite on a table; `parameters` fill the `$PARAMETER` values of the suite file.

    Raises `ContractError` when the table lacks a column or a parameter is not given: then nothing was measured.
    """
    suite = json.loads(suite_file(suite_name).read_text(encoding="utf-8"))
    _require_parameters(suite, parameters)
    _require_columns(suite, table)
    with _quiet():
        results = _run(table, suite, parameters)
    order = {expectation["meta"]["name"]: place for place, expectation in enumerate(suite["expectations"])}
    outcomes = sorted((_outcome(result) for result in results), key=lambda outcome: order[outcome.name])
    return ExpectationReport(suite_name, len(table), tuple(outcomes))


def passage_table(passages: pd.DataFrame) -> pd.DataFrame:
    """The passages as their suite looks at them: without `access`, with `span_minus_text` (characters; 0 is right)."""
    spans = passages["end"] - passages["start"]
    return passages.drop(columns="access").assign(span_minus_text=spans - passages["text"].str.len())


def evaluation_table(queries: pd.DataFrame, judgments: pd.DataFrame) -> pd.DataFrame:
    """One row per evaluation query with what its suite looks at.

    Columns: `query_id`, `split`, `normalized_text`, `words`, `positives` (judgments with a grade above 0),
    `lowest_grade` and `highest_grade` (0 without judgments).
    """
    grades = judgments.groupby("query_id")["grade"]
    judged = pd.DataFrame(
        {
            "positives": judgments[judgments["grade"] > 0].groupby("query_id").size(),
            "lowest_grade": grades.min(),
            "highest_grade": grades.max(),
        }
    )
    table = queries[["query_id", "split"]].assign(
        normalized_text=[" ".join(text.casefold().split()) for text in queries["text"]],
        words=[len(text.split()) for text in queries["text"]],
    )
    joined = table.merge(judged, how="left", left_on="query_id", right_index=True)
    numbers = ["positives", "lowest_grade", "highest_grade"]
    return joined.assign(**{name: joined[name].fillna(0).astype("int64") for name in numbers})


def report_html(report: ExpectationReport) -> str:
    """A self-contained page: one row per expectation, failures with their examples."""
    counts = report.statistics
    rows = "\n".join(_html_row(outcome) for outcome in report.results)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Expectations: {html.escape(report.suite)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c1c1c; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid #ddd; }}
.held {{ color: #17692f; }}
.critical {{ color: #a11212; font-weight: 600; }}
.warning {{ color: #7a5200; font-weight: 600; }}
code {{ overflow-wrap: anywhere; }}
</style></head><body>
<h1>Expectations: {html.escape(report.suite)}</h1>
<p>{counts["successful"]:.0f} of {counts["evaluated"]:.0f} expectations held on {report.rows:,} rows;
{counts["failed_critical"]:.0f} critical and {counts["failed_warning"]:.0f} warning ones failed.</p>
<table><thead><tr><th>Result</th><th>Expectation</th><th>Column</th><th>Expected</th><th>Observed</th><th>Examples</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""


def _html_row(outcome: ExpectationOutcome) -> str:
    label = "held" if outcome.success else outcome.severity
    examples = "<br>".join(
        f"<code>{html.escape(', '.join(f'{name}={value}' for name, value in example.items()))}</code>"
        for example in outcome.examples
    )
    cells = [
        f'<span class="{html.escape(label)}">{html.escape(label)}</span>',
        f"{html.escape(outcome.name)}<br><small>{html.escape(outcome.description)}</small>",
        html.escape(outcome.column),
        html.escape(outcome.expected),
        html.escape(outcome.observed),
        examples,
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep deprecation warnings inside Great Expectations from the caller, who cannot act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(
    table: pd.DataFrame, suite: Mapping[str, Any], parameters: Mapping[str, Any]
) -> list[ExpectationValidationResult]:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(suite["name"])
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(batch_parameters={"dataframe": table})
    expectations = gx.ExpectationSuite(name=suite["name"], expectations=suite["expectations"])
    validation = batch.validate(
        expectations,
        expectation_parameters=dict(parameters),
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": _MAX_EXAMPLES,
            "unexpected_index_column_names": suite["meta"]["row_id"],
        },
    )
    for result in validation.results:
        problem = _problem(result.exception_info)
        if problem:
            raise ContractError(f"expectation {_config(result)['meta']['name']} could not be evaluated: {problem}")
    return list(validation.results)


def _config(result: ExpectationValidationResult) -> dict[str, Any]:
    if result.expectation_config is None:
        raise ContractError("Great Expectations returned a result that does not say which expectation it is for")
    return result.expectation_config.to_json_dict()


def _problem(exception_info: Mapping[str, Any] | None) -> str:
    """Message of an exception inside an expectation: one record, or one per metric that could not be computed."""
    if not exception_info:
        return ""
    records = [exception_info] if "raised_exception" in exception_info else list(exception_info.values())
    return "; ".join(str(record["exception_message"]) for record in records if record["raised_exception"])


def _outcome(result: ExpectationValidationResult) -> ExpectationOutcome:
    config = _config(result)
    kwargs, found = config["kwargs"], result.result
    pair = [kwargs[name] for name in ("column_A", "column_B") if name in kwargs]
    bounds = {
        name: value
        for name, value in kwargs.items()
        if name not in {"batch_id", "column", "column_A", "column_B", "row_condition"}
    }
    condition = kwargs.get("row_condition")
    if condition:
        bounds["where"] = f"{condition['column']['name']} {condition['operator']} {condition['parameter']}"
    if "observed_value" in found:
        observed = _short(found["observed_value"])
    else:
        observed = f"{found.get('unexpected_count', 0)} of {found.get('element_count', 0)} rows outside"
    return ExpectationOutcome(
        name=config["meta"]["name"],
        description=str(config.get("description") or ""),
        column=str(kwargs.get("column", ", ".join(pair))),
        severity=str(config["severity"]),
        success=bool(result.success),
        observed=observed,
        expected=", ".join(f"{name} {_short(value)}" for name, value in bounds.items()),
        unexpected_count=int(found.get("unexpected_count") or 0),
        examples=() if result.success else tuple(_examples(found)),
    )


def _examples(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for row in found.get("partial_unexpected_index_list") or []:
        yield {str(name): _short(value) for name, value in row.items()}


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _require_parameters(suite: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    wanted = {
        value["$PARAMETER"]
        for expectation in suite["expectations"]
        for value in expectation["kwargs"].values()
        if isinstance(value, dict) and "$PARAMETER" in value
    }
    if missing := wanted - set(parameters):
        raise ContractError(f"suite {suite['name']} needs the parameters {', '.join(sorted(missing))}")


def _require_columns(suite: Mapping[str, Any], table: pd.DataFrame) -> None:
    names = ("column", "column_A", "column_B")
    wanted = {e["kwargs"][name] for e in suite["expectations"] for name in names if name in e["kwargs"]}
    if missing := wanted - set(table.columns):
        raise ContractError(f"suite {suite['name']} needs the columns {', '.join(sorted(missing))}")
