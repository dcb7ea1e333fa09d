"""Check results have the same metadata whether they pass or fail."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from checks import all_checks
from checks.results import check_result, markdown_table


def test_pass_and_fail_have_the_same_keys_and_kinds() -> None:
    good = check_result(True, "fine", value=0, threshold=0)
    bad = check_result(
        False, "broken", value=3, threshold=0, violations=3, examples=[{"row": 1}], report=Path("/tmp/report.html")
    )
    keys = ("value", "threshold", "violations", "judged", "examples", "report")
    assert tuple(good.metadata) == tuple(bad.metadata) == keys
    for name in ("value", "threshold", "violations", "judged", "examples"):
        assert type(good.metadata[name]) is type(bad.metadata[name])
    assert bad.metadata["report"].value == "/tmp/report.html"
    assert bad.severity == dg.AssetCheckSeverity.ERROR


def test_what_was_not_measured_is_null_and_not_a_number() -> None:
    result = check_result(True, "too few", value=None, threshold=0.5, judged=False)
    assert result.metadata["value"] == dg.MetadataValue.null()
    assert result.metadata["judged"].value is False


def test_markdown_table_escapes_and_cuts() -> None:
    table = markdown_table([{"a": "x|y\nz", "b": 0.123456}, {"a": "<b>", "c": "é" * 500}])
    header, rule, first, second = table.splitlines()
    assert header == "| a | b | c |"
    assert rule.count("---") == 3
    assert first == "| x\\|y z | 0.1235 |  |"
    assert second.startswith("| &lt;b> |  | ")
    assert len(second) < 230


def test_markdown_table_says_how_many_rows_it_leaves_out() -> None:
    assert markdown_table([]) == "none"
    table = markdown_table([{"row": number} for number in range(25)])
    assert table.endswith("\n\n5 more")
    assert "| 19 |" in table
    assert "| 20 |" not in table


def test_checks_are_unique_and_all_but_drift_and_warnings_block() -> None:
    specs = [spec for definition in all_checks() for spec in definition.check_specs]
    assert len({(spec.asset_key, spec.name) for spec in specs}) == len(specs)
    assert {spec.name for spec in specs if not spec.blocking} == {"drift_share", "expectation_warnings"}
    assert all(spec.description for spec in specs)
