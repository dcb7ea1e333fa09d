"""Writes docs/data-contracts.md: every table, raw row and message with columns, types, units and rules.

`python -m models.operations.contract_page` prints the page from the schemas; a test holds that the one in the checkout
says the same.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.contracts import messages, tables
from models.contracts.messages import MESSAGES
from models.contracts.tables import RULES, TABLES
from models.corpus.sources import RAW_CONTRACTS
from models.corpus.sources.raw_rows import RawRow
from models.settings import ROOT
from models.settings.toml_file import allowed
from models.text.markdown import table_lines

PAGE = ROOT / "docs" / "data-contracts.md"

_HEADER = """\
# Data contracts

Written from the schemas by `make contracts`: `models/contracts/tables.py` and `models/corpus/sources/`.

- [Tables](#tables) pass between assets. A breach fails the blocking check `contract` of the asset, so that nothing is
  made from it, and the table is refused as an input, however the run was started.
- [Raw rows](#raw-rows) are what a corpus source has. A row that breaks a rule goes to `quarantined_rows` and the
  reading goes on; above `corpus.max_rejected_share` of the documents, queries or judgments the blocking check
  `rejected_share` stops the run before anything is built on them.
- [Messages](#messages) pass between services, and are refused when they break a rule. `contract_version` is
  {version}; it changes when a field changes its meaning or disappears.

A text column is UTF-8 without NUL. Offsets count Unicode characters from 0. Times are ISO 8601, in UTC where a row
states no offset.

## Why a row is quarantined

`rerankops quarantine list` counts rows by these rules; `reason` says of each row what is wrong.
"""

_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "yes or no", "null": "none"}
_PANDAS = {"string": "text", "int64": "integer", "float64": "number", "bool": "yes or no", "object": "list of text"}


def render() -> str:
    """The text of the page."""
    lines = [_HEADER.format(version=messages.CONTRACT_VERSION)]
    lines += table_lines(("rule", "what the row breaks"), ((f"`{rule}`", words) for rule, words in RULES.items()))
    lines += ["", "## Tables"]
    for file, schema in TABLES.items():
        lines += ["", f"### {file}", "", _text(schema), "", *_columns(schema)]
    lines += ["", "## Raw rows", "", "Columns that are not listed are ignored."]
    for kind, sources in _raw_kinds().items():
        lines += ["", f"### {kind.__name__}", "", f"{_text(kind)} Read by {', '.join(sources)}.", "", *_fields(kind)]
    lines += ["", "## Messages"]
    for kind in MESSAGES:
        lines += ["", f"### {kind.__name__}", "", _text(kind), "", *_fields(kind)]
    return "\n".join(lines) + "\n"


def _raw_kinds() -> dict[type[RawRow], list[str]]:
    """The kinds of raw rows, with the sources and tables that have them."""
    kinds: dict[type[RawRow], list[str]] = {}
    for source, raw_tables in RAW_CONTRACTS.items():
        for table, kind in raw_tables.items():
            kinds.setdefault(kind, []).append(f"`{source}` ({table})")
    return kinds


def _columns(schema: Any) -> list[str]:
    """The columns of a pandera schema as a table, and the rules that look at several of them."""
    built = schema.to_schema()
    rows = []
    for name, column in built.columns.items():
        rules = [_rule(check) for check in column.checks] + (["unique"] if column.unique else [])
        unit = (column.metadata or {}).get("unit", "")
        kind = _PANDAS.get(str(column.dtype).partition("[")[0], "time")
        empty = "may be missing" if column.nullable else "required"
        rows.append((f"`{name}`", kind, unit, empty, "; ".join(rules), column.description or ""))
    lines = table_lines(("column", "type", "unit", "", "rule", "what it is"), rows)
    whole = [check.name.replace("_", " ") for check in built.checks]
    whole += [f"{' and '.join(built.unique)} together are unique"] if built.unique else []
    return [*lines, "", f"Of the whole: {'; '.join(whole)}."] if whole else lines


def _rule(check: Any) -> str:
    """A pandera check in words."""
    known = check.statistics or {}
    if check.name == "str_matches":
        return _pattern(known["pattern"])
    words = {
        "str_length": lambda: f"at least {known['min_value']} character",
        "isin": lambda: f"one of {', '.join(f'`{value}`' for value in known['allowed_values'])}",
        "greater_than": lambda: f"above {known['min_value']}",
        "greater_than_or_equal_to": lambda: f"at least {known['min_value']}",
        "less_than_or_equal_to": lambda: f"at most {known['max_value']}",
        "not_equal_to": lambda: f"not `{known['value']}`",
        "str_startswith": lambda: f"starts with `{known['string']}`",
    }
    return words[check.name]() if check.name in words else check.name.replace("_", " ")


def _pattern(pattern: str) -> str:
    known = {
        tables.ID_PATTERN: "1 to 512 characters on one line, no space at its ends",
        tables.TEXT_PATTERN: "a visible character",
    }
    return known.get(pattern, f"matches `{pattern}`")


def _fields(kind: type[BaseModel]) -> list[str]:
    """The fields of a pydantic model as a table, under the names that the sender gives them."""
    properties: Mapping[str, Any] = kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        theirs = field.validation_alias if isinstance(field.validation_alias, str) else name
        needed = "required" if field.is_required() else f"`{_default(field)}` if missing"
        rows.append((f"`{theirs}`", _type(properties[theirs]), needed, _limits(field), field.description or ""))
    return table_lines(("field", "type", "", "rule", "what it is"), rows)


def _default(field: FieldInfo) -> str:
    return json.dumps(field.get_default(call_default_factory=True), default=list)


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    return _TYPES.get(schema.get("type", ""), "object")


def _limits(field: FieldInfo) -> str:
    limit = allowed(field).rstrip(".")
    shortest = next((item.min_length for item in field.metadata if hasattr(item, "min_length")), None)
    return limit[:1].lower() + limit[1:] if limit else "" if shortest is None else f"at least {shortest} character"


def _text(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or kind.__name__).split())


if __name__ == "__main__":
    sys.stdout.write(render())
