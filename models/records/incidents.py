"""Incidents: what a person should look at, with the evidence, from the moment it was opened until it is closed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql, sqlite

from models.errors import RerankOpsError
from models.records.database import Database
from models.records.tables import IncidentRow

Kind = Literal["drift", "gate", "rollback", "fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident; open while `closed` is None, else closed by somebody with a note on why. Times are in UTC."""

    incident_id: str
    kind: Kind
    opened: datetime
    evidence: Mapping[str, Any]
    dedupe_key: str | None
    closed: datetime | None
    closed_by: str | None
    closed_note: str | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "id": self.incident_id,
            "kind": self.kind,
            "opened": self.opened.isoformat(timespec="seconds"),
            "evidence": dict(self.evidence),
            "closed": self.closed.isoformat(timespec="seconds") if self.closed else None,
            "closed_by": self.closed_by,
            "closed_note": self.closed_note,
        }


def open_incident(
    database: Database, kind: Kind, evidence: Mapping[str, Any], dedupe_key: str | None = None
) -> Incident:
    """Open an incident, or return the open one with the same `dedupe_key`. `evidence` is JSON values without NaN."""
    now = datetime.now(UTC)
    values = {
        "incident_id": f"i-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        "kind": kind,
        "opened": now,
        "evidence": dict(evidence),
        "dedupe_key": dedupe_key,
        "closed": None,
    }
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[database.dialect]
    statement = (
        insert(IncidentRow)
        .values(values)
        .on_conflict_do_nothing(index_elements=["dedupe_key"], index_where=text("closed IS NULL"))
    )
    # Another round only when the open incident was closed between the two statements.
    while True:
        with database.session() as session:
            session.execute(statement)
            same = IncidentRow.incident_id == values["incident_id"]
            if dedupe_key is not None:
                same = (IncidentRow.dedupe_key == dedupe_key) & IncidentRow.closed.is_(None)
            row = session.scalars(select(IncidentRow).where(same)).one_or_none()
            if row is not None:
                return _to_incident(row)


def close_incident(database: Database, incident_id: str, *, actor: str, note: str) -> Incident:
    """Close an incident. One that is closed stays as it was closed. Raises `RerankOpsError` if there is none."""
    with database.session() as session:
        row = session.get(IncidentRow, incident_id, with_for_update=True)
        if row is None:
            raise RerankOpsError(f"there is no incident {incident_id}", "`rerankops incidents --all` lists them.")
        if row.closed is None:
            row.closed, row.closed_by, row.closed_note = datetime.now(UTC), actor, note
            session.flush()
        return _to_incident(row)


def open_incidents(database: Database, kind: Kind | None = None) -> list[Incident]:
    """Open incidents, oldest first; of one kind, if given."""
    wanted = (
        select(IncidentRow).where(IncidentRow.closed.is_(None)).order_by(IncidentRow.opened, IncidentRow.incident_id)
    )
    if kind is not None:
        wanted = wanted.where(IncidentRow.kind == kind)
    with database.session(read_only=True) as session:
        return [_to_incident(row) for row in session.scalars(wanted)]


def recent_incidents(database: Database, limit: int = 50) -> list[Incident]:
    """The latest incidents, open and closed, newest first."""
    newest = select(IncidentRow).order_by(IncidentRow.opened.desc(), IncidentRow.incident_id.desc()).limit(limit)
    with database.session(read_only=True) as session:
        return [_to_incident(row) for row in session.scalars(newest)]


def _to_incident(row: IncidentRow) -> Incident:
    return Incident(
        incident_id=row.incident_id,
        kind=cast(Kind, row.kind),
        opened=row.opened,
        evidence=row.evidence,
        dedupe_key=row.dedupe_key,
        closed=row.closed,
        closed_by=row.closed_by,
        closed_note=row.closed_note,
    )
