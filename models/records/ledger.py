"""The release ledger: which bundle serves, which served before, who changed that and why. Rows are only ever added.

A change is three steps: `begin` writes the intent, the caller looks whether the bundle can serve, `activate` makes it
the current release. A process killed in between leaves one pending row, which `models.release.releaser` finishes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import Select, func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.errors import ReleaseError
from models.records.database import Database
from models.records.tables import GateDecisionRow, ReleaseRow

Action = Literal["release", "rollback"]
State = Literal["pending", "active", "abandoned"]
Verdict = Literal["released", "refused", "current"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleVersions:
    """What a release puts into service: a bundle, its version in MLflow, and the versions of what it is made of, its
    models by tier."""

    bundle_version: str
    model_version: str
    index_version: str
    corpus_version: str
    model_versions: Mapping[str, str]
    settings_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(BundleVersions):
    """A row of the ledger: `previous_release_id` is what a rollback of this release restores; times are in UTC."""

    sequence: int
    release_id: str
    action: Action
    state: State
    gate_decision_id: str | None
    previous_release_id: str | None
    restores_release_id: str | None
    actor: str
    reason: str
    created_at: datetime
    activated_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecord:
    """A decision of the gate on a candidate bundle as it was recorded, with every number behind it in `checks`."""

    decision_id: str
    candidate_version: str
    champion_version: str | None
    verdict: Verdict
    checks: Mapping[str, Any]
    created_at: datetime


class Ledger:
    """Reads and extends the ledger of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def current(self) -> Release | None:
        """The release that serves: the latest active row."""
        with self.database.session(read_only=True) as session:
            return _release(_current(session))

    def previous(self) -> Release | None:
        """The release that a rollback would restore; a second rollback goes further back, not forth again."""
        with self.database.session(read_only=True) as session:
            return _release(_previous(session))

    def earlier(self) -> list[Release]:
        """The releases that rollbacks would restore one after the other: each bundle once, without the current one."""
        with self.database.session(read_only=True) as session:
            row = _current(session)
            bundles = {row.bundle_version} if row is not None else set()
            releases = []
            while row is not None and row.previous_release_id is not None:
                row = _find(session, row.previous_release_id)
                if row is not None and row.bundle_version not in bundles:
                    bundles.add(row.bundle_version)
                    releases.append(_to_release(row))
            return releases

    def get(self, release_id: str) -> Release | None:
        """A release by its id, in any state."""
        with self.database.session(read_only=True) as session:
            return _release(_find(session, release_id))

    def pending(self) -> list[Release]:
        """Releases that were begun and neither activated nor abandoned: a live process's, or what a crash left."""
        with self.database.session(read_only=True) as session:
            rows = session.scalars(_in_order().where(ReleaseRow.state == "pending"))
            return [_to_release(row) for row in rows]

    def history(self, limit: int = 50) -> list[Release]:
        """The latest rows in every state, newest first."""
        with self.database.session(read_only=True) as session:
            rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.sequence.desc()).limit(limit))
            return [_to_release(row) for row in rows]

    def highest_model_version(self) -> int:
        """The highest number that MLflow has given to a bundle of the ledger, 0 before the first."""
        with self.database.session(read_only=True) as session:
            numbers = session.scalars(select(ReleaseRow.model_version))
            return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def was_rolled_back(self, bundle_version: str) -> bool:
        """Whether a rollback took this bundle out of service and nothing has put it back since."""
        with self.database.session(read_only=True) as session:
            rows = session.scalars(_in_order().where(ReleaseRow.state == "active"))
            served, rolled_back = "", False
            for row in rows:
                if row.bundle_version == bundle_version:
                    rolled_back = False
                elif served == bundle_version and row.action == "rollback":
                    rolled_back = True
                served = row.bundle_version
            return rolled_back

    def begin(
        self, versions: BundleVersions, *, actor: str, reason: str, gate_decision_id: str | None = None
    ) -> Release:
        """Write the intent to release a bundle. Raises `ReleaseError` while another release is pending."""
        with self._writing() as session:
            current = _current(session)
            return _add(
                session,
                versions,
                action="release",
                gate_decision_id=gate_decision_id,
                previous_release_id=None if current is None else current.release_id,
                restores_release_id=None,
                actor=actor,
                reason=reason,
            )

    def begin_rollback(self, *, actor: str, reason: str, to: str | None = None) -> Release:
        """Write the intent to restore the previous release, or the release `to` that has served before.

        Raises `ReleaseError` if there is nothing to restore, or while another release is pending.
        """
        with self._writing() as session:
            current = _current(session)
            restored = _previous(session) if to is None else _find(session, to)
            if restored is None or restored.state != "active":
                raise ReleaseError(
                    "there is no earlier release to roll back to"
                    if to is None
                    else f"{to} is not a release that has served",
                    "The ledger's history lists the releases and their states.",
                )
            if current is not None and restored.release_id == current.release_id:
                raise ReleaseError(
                    f"{restored.release_id} is the release that serves", "There is nothing to roll back."
                )
            return _add(
                session,
                _to_release(restored),
                action="rollback",
                gate_decision_id=restored.gate_decision_id,
                previous_release_id=restored.previous_release_id,
                restores_release_id=restored.release_id,
                actor=actor,
                reason=reason,
            )

    def activate(self, release_id: str) -> Release:
        """Make a pending release the current one; again for an active one changes nothing."""
        return self._settle(release_id, "active")

    def abandon(self, release_id: str) -> Release:
        """Give a pending release up; again for an abandoned one changes nothing."""
        return self._settle(release_id, "abandoned")

    def record_gate_decision(
        self, *, candidate_version: str, champion_version: str | None, verdict: Verdict, checks: Mapping[str, Any]
    ) -> GateRecord:
        """Keep what the gate said; `checks` are JSON values without NaN."""
        now = datetime.now(UTC)
        row = GateDecisionRow(
            decision_id=_new_id("g", now),
            candidate_version=candidate_version,
            champion_version=champion_version,
            verdict=verdict,
            checks=dict(checks),
            created_at=now,
        )
        with self.database.session() as session:
            session.add(row)
            session.flush()
            return _to_gate_record(row)

    def candidates_judged_on(self, evaluation_set: str, but: str = "") -> int:
        """How many candidates, `but` that one, the gate has decided on by a version of the evaluation set."""
        judged = select(func.count(func.distinct(GateDecisionRow.candidate_version))).where(
            GateDecisionRow.checks["evaluation_set_version"].as_string() == evaluation_set,
            GateDecisionRow.candidate_version != but,
        )
        with self.database.session(read_only=True) as session:
            return int(session.scalar(judged) or 0)

    def gate_decisions(self, limit: int = 50) -> list[GateRecord]:
        """The latest gate decisions, newest first."""
        newest_first = select(GateDecisionRow).order_by(
            GateDecisionRow.created_at.desc(), GateDecisionRow.decision_id.desc()
        )
        with self.database.session(read_only=True) as session:
            return [_to_gate_record(row) for row in session.scalars(newest_first.limit(limit))]

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction in which nobody else changes the ledger: what it reads stays true until it commits."""
        with self.database.session() as session:
            if self.database.dialect == "postgresql":
                session.execute(text("SET LOCAL lock_timeout = '30s'"))
                session.execute(text("LOCK TABLE releases IN SHARE ROW EXCLUSIVE MODE"))
            yield session

    def _settle(self, release_id: str, state: State) -> Release:
        with self._writing() as session:
            row = _find(session, release_id)
            if row is None:
                raise ReleaseError(f"there is no release {release_id}")
            if row.state not in ("pending", state):
                raise ReleaseError(f"{release_id} is {row.state} and stays so", "Begin a new release.")
            if row.state == "pending":
                row.state = state
                row.activated_at = datetime.now(UTC) if state == "active" else None
                session.flush()
            return _to_release(row)


class LedgerToMigrate(Ledger):
    """The ledger of a database that was away when it should have been migrated: that is done when it is first asked."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._is_migrated = False

    def current(self) -> Release | None:
        """The release that serves: the latest active row."""
        if not self._is_migrated:
            self.database.migrate()
            self._is_migrated = True
        return super().current()


def _in_order() -> Select[ReleaseRow]:
    return select(ReleaseRow).order_by(ReleaseRow.sequence)


def _current(session: Session) -> ReleaseRow | None:
    latest = select(ReleaseRow).where(ReleaseRow.state == "active").order_by(ReleaseRow.sequence.desc()).limit(1)
    return session.scalars(latest).first()


def _previous(session: Session) -> ReleaseRow | None:
    current = _current(session)
    if current is None or current.previous_release_id is None:
        return None
    return _find(session, current.previous_release_id)


def _find(session: Session, release_id: str) -> ReleaseRow | None:
    return session.scalars(select(ReleaseRow).where(ReleaseRow.release_id == release_id)).one_or_none()


def _add(session: Session, versions: BundleVersions, **columns: Any) -> Release:
    pending = session.scalars(_in_order().where(ReleaseRow.state == "pending")).first()
    if pending is not None:
        raise ReleaseError(
            f"{pending.release_id} ({pending.action} of bundle {pending.bundle_version}) is still pending",
            "Another process is releasing, or one was stopped half-way; the next run repairs it.",
        )
    gate_decision_id = columns["gate_decision_id"]
    if gate_decision_id is not None and session.get(GateDecisionRow, gate_decision_id) is None:
        raise ReleaseError(
            f"there is no gate decision {gate_decision_id}", "Record the gate's decision before the release."
        )
    now = datetime.now(UTC)
    row = ReleaseRow(
        release_id=_new_id("r", now),
        state="pending",
        bundle_version=versions.bundle_version,
        model_version=versions.model_version,
        index_version=versions.index_version,
        corpus_version=versions.corpus_version,
        model_versions=dict(versions.model_versions),
        settings_digest=versions.settings_digest,
        created_at=now,
        activated_at=None,
        **columns,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise ReleaseError(f"the ledger refused {row.release_id}: {error.orig}") from error
    return _to_release(row)


def _new_id(kind: str, now: datetime) -> str:
    return f"{kind}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _release(row: ReleaseRow | None) -> Release | None:
    return None if row is None else _to_release(row)


def _to_release(row: ReleaseRow) -> Release:
    return Release(**{field.name: getattr(row, field.name) for field in fields(Release)})


def _to_gate_record(row: GateDecisionRow) -> GateRecord:
    return GateRecord(
        decision_id=row.decision_id,
        candidate_version=row.candidate_version,
        champion_version=row.champion_version,
        verdict=cast(Verdict, row.verdict),
        checks=row.checks,
        created_at=row.created_at,
    )
