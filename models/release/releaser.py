"""Release and rollback: the ledger says what serves, MLflow's aliases follow it.

The order is intent (a pending row), the bundle's digests, the incident of a rollback, activation, and then the aliases,
which may be late: a rollback works while MLflow is away. A process killed in between leaves a pending row or aliases
behind; `repair`, with which every run and release begins, does the rest again.

Processes of several homes or hosts may share the ledger. One at a time goes from intent to activation, and one at a
time moves the aliases, so that neither a live process's row nor a newer release's aliases are taken for what a crash
has left.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from models.contracts.tiers import MODEL_TIERS
from models.errors import ArtifactError, GateRefused, ReleaseError, RerankOpsError
from models.records.incidents import open_incident
from models.records.ledger import BundleVersions, Ledger, Release
from models.records.mlflow_registry import CHALLENGER, CHAMPION, PREVIOUS, Tracking
from models.release.bundle import Bundle
from models.release.gate import GateDecision, refusals
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE

_LOG = logging.getLogger(__name__)
_TURN_S = 30.0
"""Wait for another process that is releasing, or moving aliases, at most."""


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
    """Where bundles are; where it is given, none that was deleted or damaged comes into service."""

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
        tracking, above = self.tracking, self.ledger.highest_model_version()
        versions = bundle_versions(bundle, tracking.ensure_version(tracking.model_name, bundle, above=above))
        return self.release(versions, gate_decision_id=gate_decision_id, actor=actor, reason=reason)

    def release(self, versions: BundleVersions, *, gate_decision_id: str, actor: str, reason: str) -> Release:
        """Make a bundle the champion; the one that already is stays, with no new row.

        Raises `ArtifactError` if a file of the bundle differs from its digest.
        """
        with self._turn():
            self._complete()
            champion = self.ledger.current()
            if champion is None or champion.bundle_version != versions.bundle_version:
                champion = self._finish(
                    self.ledger.begin(versions, gate_decision_id=gate_decision_id, actor=actor, reason=reason)
                )
        self.follow()
        return champion

    def rollback(self, *, actor: str, reason: str, to: str | None = None) -> Release:
        """`restore`, and then the aliases."""
        restored = self.restore(actor=actor, reason=reason, to=to)
        self.follow()
        return restored

    def restore(self, *, actor: str, reason: str, to: str | None = None) -> Release:
        """Restore the whole bundle of the release before, or of release `to`, and open an incident about it; MLflow
        takes no part.

        Raises `ReleaseError` if there is none, or its bundle was deleted or is damaged.
        """
        with self._turn():
            self._complete()
            return self._finish(self.ledger.begin_rollback(actor=actor, reason=reason, to=to))

    def complete(self) -> list[Release]:
        """Finish what a crash left pending; a bundle that is gone or damaged is given up."""
        with self._turn():
            return self._complete()

    def _complete(self) -> list[Release]:
        completed: list[Release] = []
        for pending in self.ledger.pending():
            try:
                completed.append(self._finish(pending))
            except (ArtifactError, ReleaseError) as error:
                _LOG.error("%s was left pending and is given up: %s", pending.release_id, error.message)
        return completed

    def repair(self) -> list[Release]:
        """Finish what a crash left pending, and what it left of the aliases."""
        completed = self.complete()
        self.follow()
        return completed

    def follow(self) -> bool:
        """Move MLflow's aliases to what the ledger says; False, and logged, where that cannot be done now.

        One process at a time moves them, and looks again when it has: a release that did not wait for it is not missed.
        What stays behind, the next release, rollback or run brings up to date.
        """
        try:
            with self.ledger.database.lock("aliases", _TURN_S) as is_held:
                if not is_held:
                    raise ReleaseError("another process has been moving them for a while")
                current = self.ledger.current()
                while current is not None:
                    self._move_aliases(current)
                    moved, current = current, self.ledger.current()
                    if current == moved:
                        break
        except Exception as error:
            # MLflow's clients raise whatever their transport does, and the ledger, not MLflow, says what serves.
            _LOG.warning("MLflow's aliases do not follow the ledger yet: %s: %s", type(error).__name__, error)
            return False
        return True

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Keep other processes from beginning a release, or from finishing the one that this process begins.

        One that hangs is not waited for any longer than `_TURN_S`: a rollback is in a hurry, and the ledger itself
        allows one pending row.
        """
        with self.ledger.database.lock("release", _TURN_S) as is_held:
            if not is_held:
                _LOG.warning("another process has been releasing for %.0f s; it is not waited for", _TURN_S)
            yield

    def _finish(self, pending: Release) -> Release:
        """Activate a pending release; one that cannot serve, or that fails on the way, is given up."""
        try:
            self._verify(pending)
            if pending.action == "rollback":
                self._open_incident(pending)
            return self.ledger.activate(pending.release_id)
        except Exception:
            # Told as failed, it must not come into service later, by itself.
            with suppress(RerankOpsError):
                self.ledger.abandon(pending.release_id)
            raise

    def _verify(self, pending: Release) -> None:
        if self.store is None:
            return
        if not self.store.has(RELEASE_CANDIDATE, pending.bundle_version):
            raise ReleaseError(
                f"bundle {pending.bundle_version} of {pending.restores_release_id or pending.release_id} is no longer "
                "in the artifact store",
                "Name another release with --to, or run again with the settings and the corpus that made it.",
            )
        try:
            self.store.open(RELEASE_CANDIDATE, pending.bundle_version).verify()
        except ArtifactError as error:
            raise ReleaseError(
                f"bundle {pending.bundle_version} cannot serve: {error.message}",
                "`rerankops verify` lists what is damaged; name another release with --to, or make the bundle anew.",
            ) from error

    def _open_incident(self, pending: Release) -> None:
        evidence = {
            "release_id": pending.release_id,
            "bundle_version": pending.bundle_version,
            "actor": pending.actor,
            "reason": pending.reason,
        }
        open_incident(self.ledger.database, "rollback", evidence, dedupe_key=f"rollback:{pending.release_id}")

    def _move_aliases(self, release: Release) -> None:
        champion = self._version_of(release)
        self.tracking.set_alias(CHAMPION, champion)
        previous = self.ledger.get(release.previous_release_id) if release.previous_release_id else None
        self.tracking.set_alias(PREVIOUS, self._version_of(previous) if previous else None)
        if self.tracking.alias(CHALLENGER) == champion:
            self.tracking.set_alias(CHALLENGER, None)

    def _version_of(self, release: Release) -> str:
        """The number of a release's bundle in MLflow: the ledger's, or where the registry was lost, one given now."""
        tracking = self.tracking
        if self.store is None or not self.store.has(RELEASE_CANDIDATE, release.bundle_version):
            return release.model_version
        registered = tracking.registered(tracking.model_name, number=release.model_version)
        if registered is not None and registered.data_version == release.bundle_version:
            return release.model_version
        bundle = self.store.open(RELEASE_CANDIDATE, release.bundle_version)
        return tracking.ensure_version(tracking.model_name, bundle, above=self.ledger.highest_model_version())
