"""Validations of suites: computed once per content, suite and parameters, with their page of Data Docs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.expectations.accepted import accepted_facts
from models.expectations.steps import EXPECTATIONS
from models.expectations.tables import SUITE_OF, table_of
from models.expectations.validation import ExpectationReport, validate_with_page
from models.store.durable_files import digest_json, write_atomically

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


_CHARACTERS_PER_TOKEN = 12
"""Word pieces of prose have 4 to 5 characters; a passage with more than 12 per token was not cut by tokens."""


def parameters_of(asset: str, settings: Settings) -> dict[str, Any]:
    """The parameters of an asset's suite that are no facts of an accepted version."""
    if asset == "corpus/passages":
        return {"min_passages": 2, "max_characters": _CHARACTERS_PER_TOKEN * settings.corpus.passage_tokens}
    if asset == "corpus/evaluation_set":
        return {"min_test_queries": 6, "min_dev_queries": 2, "max_mean_positives": 10}
    return {}


def suite_report(
    store: ArtifactStore, settings: Settings, asset: str, artifacts: Mapping[str, Artifact]
) -> tuple[ExpectationReport, Path]:
    """The report of the suite of `asset` on a version of it, and its page. `artifacts` are those of
    `models.expectations.steps.SUITE_READS`.

    The facts of the accepted version count unless `corpus.hold_against_accepted` is off.
    """
    suite = SUITE_OF[asset]
    accepted = accepted_facts(store, artifacts[asset]) if settings.corpus.hold_against_accepted else {}
    values = {**parameters_of(asset, settings), **accepted}
    versions = {artifact.asset: artifact.data_version for artifact in artifacts.values()}
    key = {"asset": asset, "versions": versions, "suite": suite, "parameters": values}
    name = digest_json([key, EXPECTATIONS.code_version])[:24]
    page = settings.home / "reports" / "expectations" / f"{suite}-{name}.html"
    validate = partial(validate_tables, asset, artifacts, suite, values, page)
    report = EXPECTATIONS.remember(store, key, validate)
    if not page.is_file():  # It lies in the home, the result in the store.
        report = validate()
    return ExpectationReport.from_dict(report), page


def validate_tables(
    asset: str, artifacts: Mapping[str, Artifact], suite: str, parameters: Mapping[str, Any], page: Path
) -> dict[str, Any]:
    """Validate the table that the suite of `asset` is about, and write the page; returns the report."""
    report, html = validate_with_page(table_of(asset, artifacts), suite, parameters)
    write_atomically(page, html.encode())
    return report.to_dict()
