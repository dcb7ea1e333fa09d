"""Corrections of quarantined rows, kept in the records database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from models.corpus.sources.corrections import Correction, Corrections
from models.errors import RerankOpsError
from models.records.database import Database
from models.records.tables import CorrectionRow

ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class StoredCorrection:
    """A correction with its provenance; in force while `withdrawn_at` is None. Times are in UTC.

    `source` is the kind of source, `digest` that of the row that it stands in for, and `replaces` says which row of the
    quarantine that was: its `row_id`, `rule`, `reason` and the version of `corpus/quarantined_rows` that held it.
    """

    correction_id: str
    source: str
    table: str
    position: str
    digest: str
    row: Mapping[str, Any]
    replaces: Mapping[str, Any]
    actor: str
    note: str
    created_at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None
    withdrawn_note: str | None = None


def withdraw(
    database: Database, correction_ids: Iterable[str], *, actor: str, note: str = ""
) -> list[StoredCorrection]:
    """Take corrections out of force, all or none. Raises `RerankOpsError` naming one that is not in force."""
    withdrawn = []
    with database.session() as session:
        for correction_id in dict.fromkeys(correction_ids):
            wanted = select(CorrectionRow).where(
                CorrectionRow.correction_id == correction_id, CorrectionRow.withdrawn_at.is_(None)
            )
            row = session.scalars(wanted).one_or_none()
            if row is None:
                raise RerankOpsError(
                    f"no correction {correction_id} is in force", "`rerankops quarantine corrections` lists them."
                )
            row.withdrawn_at, row.withdrawn_by, row.withdrawn_note = datetime.now(UTC), actor, note
            session.flush()
            withdrawn.append(_stored(row))
    return withdrawn


def corrections_of(database: Database, source: str, *, withdrawn: bool = False) -> list[StoredCorrection]:
    """The corrections of a kind of source that are in force, oldest first; with those that were `withdrawn`."""
    wanted = select(CorrectionRow).where(CorrectionRow.source == source).order_by(CorrectionRow.sequence)
    if not withdrawn:
        wanted = wanted.where(CorrectionRow.withdrawn_at.is_(None))
    with database.session(read_only=True) as session:
        return [_stored(row) for row in session.scalars(wanted)]


def corrections_in_force(database: Database, source: str) -> Corrections:
    """`corrections_of` as a reading takes them."""
    stored = corrections_of(database, source)
    return Corrections(Correction(c.correction_id, c.table, c.position, c.digest, c.row) for c in stored)


def store_corrections(database: Database, corrections: Iterable[StoredCorrection]) -> None:
    """Put corrections in force, in place of earlier ones of the same rows."""
    with database.session() as session:
        for correction in corrections:
            at = (
                CorrectionRow.source == correction.source,
                CorrectionRow.table_name == correction.table,
                CorrectionRow.position == correction.position,
                CorrectionRow.withdrawn_at.is_(None),
            )
            for row in session.scalars(select(CorrectionRow).where(*at)):
                row.withdrawn_at, row.withdrawn_by = correction.created_at, correction.actor
                row.withdrawn_note = f"replaced by {correction.correction_id}"
            session.flush()
            session.add(
                CorrectionRow(
                    correction_id=correction.correction_id,
                    source=correction.source,
                    table_name=correction.table,
                    position=correction.position,
                    digest=correction.digest,
                    row=dict(correction.row),
                    replaces=dict(correction.replaces),
                    actor=correction.actor,
                    note=correction.note,
                    created_at=correction.created_at,
                )
            )


def _stored(row: CorrectionRow) -> StoredCorrection:
    return StoredCorrection(
        row.correction_id,
        row.source,
        row.table_name,
        row.position,
        row.digest,
        row.row,
        row.replaces,
        row.actor,
        row.note,
        row.created_at,
        row.withdrawn_at,
        row.withdrawn_by,
        row.withdrawn_note,
    )
