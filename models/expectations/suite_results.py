"""Validations of suites: computed once per content, suite and parameters, with their page of Data Docs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.expectations.accepted import accepted_facts, current_tables
from models.expectations.steps import EXPECTATIONS
from models.expectations.tables import table_of
from models.expectations.validation import ExpectationReport, validate_with_page
from models.store.durable_files import digest_json, write_atomically

if TYPE_CHECKING:
    from models.settings import Settings
    from models.store.artifacts import Artifact, ArtifactStore


def suite_report(
    store: ArtifactStore, settings: Settings, asset: str, suite: str, parameters: Mapping[str, Any]
) -> tuple[ExpectationReport, Path]:
    """The report on the current version of `asset` and its page. `parameters` stand beside the facts of the accepted
    version, unless `corpus.hold_against_accepted` is off."""
    artifacts = current_tables(store, asset)
    accepted = accepted_facts(store, asset) if settings.corpus.hold_against_accepted else {}
    values = {**parameters, **accepted}
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
