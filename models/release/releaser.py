"""Release and rollback: the ledger says what serves, MLflow's aliases follow it.

The order is intent (a pending row), the incident of a rollback, aliases, activation. A process killed in between leaves
a pending row; `repair`, with which every release, rollback and status call begins, does the rest again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.contracts.tiers import MODEL_TIERS
from models.errors import GateRefused, ReleaseError
from models.records.incidents import open_incident
from models.records.ledger import BundleVersions, Ledger, Release, complete_pending
from models.records.mlflow_registry import CHALLENGER, CHAMPION, PREVIOUS, Tracking
from models.release.bundle import Bundle
from models.release.gate import GateDecision, refusals
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE


def bundle_versions(bundle: Artifact, model_version: str) -> BundleVersions:
    """What the ledger keeps of a bundle that is version `model_version` of MLflow's model."""
    facts = Bundle.open(bundle).facts
    return BundleVersions(
        bundle_version=bundle.data_version,
        model_version=model_version,
        index_version=facts.index_version,
        corpus_version=facts.corpus_version,
        model_versions={tier.name: facts.versions[tier.part] for tier in MODEL_TIERS if tier.part in facts.versions},
        settings_digest=bundle.manifest.settings_digest,
    )


@dataclass(frozen=True)
class Releaser:
    """Moves a deployment from one release to another."""

    ledger: Ledger
    tracking: Tracking
    store: ArtifactStore | None = None
    """Where bundles are; where it is given, a bundle that was deleted is not rolled back to."""

    def release_judged(
        self, candidate: Artifact, decision: GateDecision, recorded: Mapping[str, Any], *, actor: str
    ) -> Release:
        """Release a candidate if the gate lets it: by `decision`, made now, and by `recorded`, what decision.json says.

        Raises `GateRefused`, and what served before keeps serving.
        """
        reasons = refusals(decision, recorded, candidate.data_version)
        if reasons:
            raise GateRefused("Refused; the champion keeps serving.", "\n".join(reasons))
        return self.release_bundle(
            candidate, gate_decision_id=recorded["decision_id"], actor=actor, reason="gate passed"
        )

    def release_bundle(self, bundle: Artifact, *, gate_decision_id: str, actor: str, reason: str) -> Release:
        """Make a bundle of the artifact store the champion, registered in MLflow if it was not."""
        versions = bundle_versions(bundle, self.tracking.ensure_version(self.tracking.model_name, bundle))
        return self.release(versions, gate_decision_id=gate_decision_id, actor=actor, reason=reason)

    def release(self, versions: BundleVersions, *, gate_decision_id: str, actor: str, reason: str) -> Release:
        """Make a bundle the champion; the one that already is stays, with no new row."""
        self.repair()
        current = self.ledger.current()
        if current is not None and current.bundle_version == versions.bundle_version:
            return current
        pending = self.ledger.begin(versions, gate_decision_id=gate_decision_id, actor=actor, reason=reason)
        return self._finish(pending)

    def rollback(self, *, actor: str, reason: str, to: str | None = None) -> Release:
        """Restore the whole bundle of the release before, or of release `to`, and open an incident about it.

        Raises `ReleaseError` if there is none, or its bundle was deleted.
        """
        self.repair()
        pending = self.ledger.begin_rollback(actor=actor, reason=reason, to=to)
        if self.store is not None and not self.store.has(RELEASE_CANDIDATE, pending.bundle_version):
            self.ledger.abandon(pending.release_id)
            raise ReleaseError(
                f"bundle {pending.bundle_version} of {pending.restores_release_id} is no longer in the artifact store",
                "Name another release with --to, or run again with the settings and the corpus that made it.",
            )
        return self._finish(pending)

    def repair(self) -> list[Release]:
        """Finish what a crash left pending."""
        return complete_pending(self.ledger, self._follow)

    def _finish(self, pending: Release) -> Release:
        self._follow(pending)
        return self.ledger.activate(pending.release_id)

    def _follow(self, pending: Release) -> None:
        """What goes with a change of the ledger; done again after a crash, it changes nothing more."""
        if pending.action == "rollback":
            evidence = {
                "release_id": pending.release_id,
                "bundle_version": pending.bundle_version,
                "actor": pending.actor,
                "reason": pending.reason,
            }
            open_incident(self.ledger.database, "rollback", evidence, dedupe_key=f"rollback:{pending.release_id}")
        self._move_aliases(pending)

    def _move_aliases(self, release: Release) -> None:
        self.tracking.set_alias(CHAMPION, release.model_version)
        previous = self.ledger.get(release.previous_release_id) if release.previous_release_id else None
        self.tracking.set_alias(PREVIOUS, previous.model_version if previous else None)
        if self.tracking.alias(CHALLENGER) == release.model_version:
            self.tracking.set_alias(CHALLENGER, None)
