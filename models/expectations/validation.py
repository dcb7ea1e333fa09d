"""Expectations on whole tables, with Great Expectations: counts, shares and distributions that no single row can break.

Suites are data in `expectation_suites/`, in Great Expectations' own JSON format. `critical` expectations stop what is
downstream, `warning` ones are shown. A `$PARAMETER` is a setting, a number of the last accepted version
(`accepted_...`, see `models.expectations.accepted`), or arithmetic on them; what compares with an accepted version is
left out until there is one. The row-by-row rules are in `models.contracts.tables`.
"""

from __future__ import annotations

import html
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from models.errors import ContractError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.render.view.view import DefaultJinjaPageView

SUITES = Path(__file__).resolve().parent / "suites"
ACCEPTED = "accepted_"
"""Parameters that start so are facts of the last accepted version."""

_MAX_EXAMPLES = 10
_MAX_CHARACTERS = 120
_PARAMETER_NAME = re.compile(r"[A-Za-z_]\w*")
_FROM_NETWORK = re.compile(
    r"<script[^>]*\bsrc=[\"']https?:.*?</script>|<(?:link|img)\b[^>]*\b(?:href|src)=[\"']https?:[^>]*>", re.S | re.I
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem; border-bottom: 1px solid #ddd; }
td, pre, code { overflow-wrap: anywhere; white-space: normal; }
.text-success { color: #17692f; } .text-danger { color: #a11212; } .text-warning { color: #7a5200; }
.modal, nav, .navbar, .cooltip { display: none; }
"""


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
    """Results of one suite on one table, in the suite's order; `left_out` names what had no accepted version."""

    suite: str
    rows: int
    results: tuple[ExpectationOutcome, ...]
    left_out: tuple[str, ...] = ()

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
        return cls(values["suite"], values["rows"], tuple(outcomes), tuple(values["left_out"]))


def suite_file(suite_name: str) -> Path:
    """The data file of a suite. Raises `ContractError` when there is none."""
    path = SUITES / f"{suite_name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SUITES.glob("*.json")))
        raise ContractError(f"there is no expectation suite {suite_name!r}", f"Suites: {known}.")
    return path


def suite_text(suite: Mapping[str, Any]) -> str:
    """A suite as its file has it: one line for each part of an expectation, so that differences are easy to read."""
    parts = [
        ",\n".join(f"      {json.dumps(name)}: {json.dumps(value)}" for name, value in expectation.items())
        for expectation in suite["expectations"]
    ]
    expectations = ",\n".join(f"    {{\n{part}\n    }}" for part in parts)
    head = "".join(f"  {json.dumps(name)}: {json.dumps(suite[name])},\n" for name in ("name", "meta"))
    return f'{{\n{head}  "expectations": [\n{expectations}\n  ]\n}}\n'


def validate(table: pd.DataFrame, suite_name: str, parameters: Mapping[str, Any]) -> ExpectationReport:
    """`validate_with_page` without the page."""
    return validate_with_page(table, suite_name, parameters)[0]


def validate_with_page(
    table: pd.DataFrame, suite_name: str, parameters: Mapping[str, Any]
) -> tuple[ExpectationReport, str]:
    """Run a suite on a table; `parameters` fill the `$PARAMETER` values of the suite file.

    Returns the report and Great Expectations' Data Docs page of it. Raises `ContractError` when the table lacks a
    column or a parameter is not given, other than those of an accepted version: then nothing was measured.
    """
    suite = json.loads(suite_file(suite_name).read_text(encoding="utf-8"))
    kept = [expectation for expectation in suite["expectations"] if not _lacks_accepted(expectation, parameters)]
    left_out = [expectation["meta"]["name"] for expectation in suite["expectations"] if expectation not in kept]
    suite["expectations"] = kept
    _require_parameters(suite, parameters)
    _require_columns(suite, table)
    with _quiet():
        validation = _run(table, suite, parameters)
        order = {expectation["meta"]["name"]: number for number, expectation in enumerate(kept)}
        outcomes = sorted((_outcome(result) for result in validation.results), key=lambda outcome: order[outcome.name])
        page = _data_docs(validation)
    return ExpectationReport(suite_name, len(table), tuple(outcomes), tuple(left_out)), page


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep deprecation warnings inside Great Expectations from the caller, who cannot act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _run(
    table: pd.DataFrame, suite: Mapping[str, Any], parameters: Mapping[str, Any]
) -> ExpectationSuiteValidationResult:
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
    return validation


def _data_docs(validation: ExpectationSuiteValidationResult) -> str:
    """Great Expectations' own page of a validation, with a style sheet of ours: it would load its from the network."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer

    # Great Expectations 1.24 writes the values of offending rows into the page as they are, markup too, and cannot
    # show NumPy's numbers.
    for result in validation.results:
        result.result = _shown(result.result)
    page = _page_view().render(ValidationResultsPageRenderer().render(validation))
    return _FROM_NETWORK.sub("", page).replace("</head>", f"<style>{_STYLE}</style></head>", 1)


@cache
def _page_view() -> DefaultJinjaPageView:
    """Kept, since it compiles its templates once."""
    from great_expectations.render.view.view import DefaultJinjaPageView

    return DefaultJinjaPageView()


def _shown(value: Any) -> Any:
    """The value with every text in it escaped for HTML and every number one of Python's."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


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
    kwargs, outcome = config["kwargs"], result.result
    pair = [*(kwargs[name] for name in ("column_A", "column_B") if name in kwargs), *kwargs.get("column_list", ())]
    bounds = {
        name: value
        for name, value in kwargs.items()
        if name not in {"batch_id", "column", "column_A", "column_B", "column_list", "row_condition"}
    }
    condition = kwargs.get("row_condition")
    if condition:
        bounds["where"] = f"{condition['column']['name']} {condition['operator']} {condition['parameter']}"
    if "observed_value" in outcome:
        observed = _short(outcome["observed_value"])
    else:
        observed = f"{outcome.get('unexpected_count', 0)} of {outcome.get('element_count', 0)} rows outside"
    return ExpectationOutcome(
        name=config["meta"]["name"],
        description=str(config.get("description") or ""),
        column=str(kwargs.get("column", ", ".join(pair))),
        severity=str(config["severity"]),
        success=bool(result.success),
        observed=observed,
        expected=", ".join(f"{name} {_short(value)}" for name, value in bounds.items()),
        unexpected_count=int(outcome.get("unexpected_count") or 0),
        examples=() if result.success else tuple(_examples(outcome)),
    )


def _examples(outcome: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for row in outcome.get("partial_unexpected_index_list") or []:
        yield {str(name): _short(value) for name, value in row.items()}


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def parameter_names(expectation: Mapping[str, Any]) -> set[str]:
    """Names in the `$PARAMETER` values of an expectation of a suite file, those of arithmetic too."""
    values = [value["$PARAMETER"] for value in expectation["kwargs"].values() if _is_parameter(value)]
    return {name for value in values for name in _PARAMETER_NAME.findall(value)}


def _is_parameter(value: Any) -> bool:
    return isinstance(value, dict) and "$PARAMETER" in value


def _lacks_accepted(expectation: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    return any(name.startswith(ACCEPTED) and name not in parameters for name in parameter_names(expectation))


def _require_parameters(suite: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    wanted = set().union(*map(parameter_names, suite["expectations"]))
    if missing := wanted - set(parameters):
        raise ContractError(f"suite {suite['name']} needs the parameters {', '.join(sorted(missing))}")


def _require_columns(suite: Mapping[str, Any], table: pd.DataFrame) -> None:
    names = ("column", "column_A", "column_B")
    wanted = {e["kwargs"][name] for e in suite["expectations"] for name in names if name in e["kwargs"]}
    wanted |= {name for e in suite["expectations"] for name in e["kwargs"].get("column_list", ())}
    if missing := wanted - set(table.columns):
        raise ContractError(f"suite {suite['name']} needs the columns {', '.join(sorted(missing))}")
