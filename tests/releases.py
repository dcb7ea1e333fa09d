"""Rows of the release ledger, for tests that need a release and no gate."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from models.records.ledger import BundleVersions, Ledger, Release


def versions_of(bundle_version: str, model_version: str = "1") -> BundleVersions:
    """A bundle as the ledger keeps it; what it is made of has the same versions in every bundle."""
    return BundleVersions(
        bundle_version=bundle_version,
        model_version=model_version,
        index_version="i",
        corpus_version="c",
        model_versions={"large": "l", "compact": "s"},
        settings_digest="d",
    )


def release_of(versions: BundleVersions, release_id: str = "r-1") -> Release:
    """An active release of a bundle, as a ledger would give it."""
    return Release(
        **asdict(versions),
        sequence=1,
        release_id=release_id,
        action="release",
        state="active",
        gate_decision_id=None,
        previous_release_id=None,
        restores_release_id=None,
        actor="ana",
        reason="test",
        created_at=datetime.now(UTC),
        activated_at=None,
    )


def release_bundle(
    ledger: Ledger, bundle_version: str, model_version: str = "1", *, gate_decision_id: str | None = None
) -> Release:
    """Make a bundle the current release of a ledger."""
    versions = versions_of(bundle_version, model_version)
    begun = ledger.begin(versions, actor="ana", reason="test", gate_decision_id=gate_decision_id)
    return ledger.activate(begun.release_id)
