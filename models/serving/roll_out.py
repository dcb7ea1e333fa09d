"""Brings the running service to the current release, or back to an earlier one, and asks it the golden queries."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from models.contracts.messages import PROBE_HEADER
from models.errors import ReleaseError, RerankOpsError
from models.measures.latency import summarize
from models.records.database import Database, DatabaseError
from models.records.ledger import Ledger, Release
from models.records.mlflow_registry import Tracking
from models.release.bundle import Bundle
from models.release.releaser import Releaser
from models.serving.api_keys import probe_key
from models.serving.client import ServiceSlow, ServiceUnavailable, call_service
from models.serving.last_releases import LastReleases
from models.settings import Settings
from models.store.artifacts import ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE

_REFRESH = "/v1/release/refresh"


@dataclass(frozen=True)
class RollOut:
    """What serves now; `served_release` is None where no service runs."""

    release_id: str
    served_release: str | None
    seconds: float
    p50_ms: float
    p95_ms: float
    golden_queries: int
    golden_agree: bool
    message: str

    @property
    def complete(self) -> bool:
        """Whether the service serves the release, and answers the golden queries as the evaluation did."""
        return self.served_release == self.release_id and self.golden_agree


def roll_out(settings: Settings, store: ArtifactStore, database: Database) -> RollOut:
    """Make the service swap to the current release, then send each golden query through /v1/answer, marked as a probe.

    Each is asked as the evaluation asked it: with as many candidates, and with the labels that its passages need.
    An answer agrees when its best passage is the golden one, or it was degraded by its budget. Raises
    `ReleaseError` before the first release.
    """
    current = Ledger(database).current()
    if current is None:
        raise ReleaseError("there is no release to serve", "Run `rerankops run` first.")
    try:
        swap = call_service(settings, "POST", _REFRESH)
    except (ServiceUnavailable, ServiceSlow) as error:
        return RollOut(current.release_id, None, 0.0, 0.0, 0.0, 0, False, f"{error.message} {error.hint}")
    bundle = Bundle.open(store.open(RELEASE_CANDIDATE, current.bundle_version))
    probe = {PROBE_HEADER: probe_key(settings.home)}
    samples, agree = [], True
    for entry in bundle.golden:
        started = time.perf_counter()
        body = {"query": entry.query, "top_k": bundle.facts.candidates, "labels": entry.labels}
        answer = call_service(settings, "POST", "/v1/answer", body, headers=probe)
        samples.append(1000 * (time.perf_counter() - started))
        best = answer["passages"][0]["passage_id"] if answer["passages"] else None
        agree &= bool(answer["degraded"]) or best == entry.passage_ids[0]
    summary = summarize(samples)
    served = str(swap["release_id"])
    return RollOut(
        current.release_id,
        served,
        float(swap["seconds"]),
        summary.p50_ms,
        summary.p95_ms,
        len(bundle.golden),
        agree,
        f"The service serves {served}; {len(bundle.golden)} golden queries asked.",
    )


@dataclass(frozen=True)
class RollBack:
    """The release that a rollback restored; `seconds` until the service served it, None where it does not yet, and
    `message` says how things stand."""

    release: Release
    seconds: float | None
    message: str


def roll_back(
    settings: Settings, store: ArtifactStore, database: Database, *, actor: str, reason: str, to: str | None = None
) -> RollBack:
    """Restore the whole bundle of the release before, or of release `to`, and make the running service serve it.

    An incident tells of it until a person closes it. MLflow's aliases follow last, as soon as it can be reached. Raises
    `ReleaseError` if there is no such release, or its bundle was deleted or is damaged.
    """
    ledger, last = Ledger(database), LastReleases.of(settings)
    releaser = Releaser(ledger, Tracking.of(settings), store)
    last.forget()  # Killed behind the rollback, it must not leave to a service what was rolled back.
    try:
        restored = releaser.restore(actor=actor, reason=reason, to=to)
    finally:
        with suppress(DatabaseError):
            last.keep(ledger)
    seconds = None
    try:
        swap = call_service(settings, "POST", _REFRESH)
    except ServiceUnavailable:
        message = "No service runs; the next `rerankops serve` serves it."
    except ServiceSlow:
        message = "The service is still loading it, and serves it as soon as it is loaded: /health says when."
    except RerankOpsError as error:
        message = f"The ledger is rolled back, and the service does not serve it yet: {error.message}"
    else:
        seconds = float(swap["seconds"])
        message = f"The service serves it after {seconds:.1f} s."
    if not releaser.follow():
        message += " MLflow cannot be reached; its aliases follow with the next run or rollback."
    return RollBack(restored, seconds, message)
