"""The tables of the records database, as SQLAlchemy maps them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, DateTime, Dialect, ForeignKey, Index, MetaData, Text, TypeDecorator, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    pass


class UtcDateTime(TypeDecorator[datetime]):
    """Times with an offset, kept in UTC; a time without an offset is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no offset: which time zone?")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite gives the UTC time back without its offset."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of the tables, with constraint names that are the same on both databases."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
    }
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class GateDecisionRow(Base):
    """What the gate said about a candidate, with every number it looked at. Triggers refuse updates and deletes."""

    __tablename__ = "gate_decisions"
    __table_args__ = (CheckConstraint("verdict IN ('released', 'refused', 'current')", name="verdict"),)

    decision_id: Mapped[str] = mapped_column(primary_key=True)
    candidate_version: Mapped[str] = mapped_column(index=True)
    champion_version: Mapped[str | None]
    verdict: Mapped[str]
    checks: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class ReleaseRow(Base):
    """A row of the release ledger. Triggers refuse every change but pending -> active and pending -> abandoned."""

    __tablename__ = "releases"
    __table_args__ = (
        CheckConstraint("action IN ('release', 'rollback')", name="action"),
        CheckConstraint("state IN ('pending', 'active', 'abandoned')", name="state"),
        CheckConstraint("(action = 'rollback') = (restores_release_id IS NOT NULL)", name="restores"),
        CheckConstraint("(state = 'active') = (activated_at IS NOT NULL)", name="activated"),
        Index(
            "uq_releases_one_pending",
            "state",
            unique=True,
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    release_id: Mapped[str] = mapped_column(unique=True)
    action: Mapped[str]
    state: Mapped[str]
    bundle_version: Mapped[str]
    model_version: Mapped[str]
    index_version: Mapped[str]
    corpus_version: Mapped[str]
    model_versions: Mapped[dict[str, Any]]
    settings_digest: Mapped[str]
    gate_decision_id: Mapped[str | None] = mapped_column(ForeignKey("gate_decisions.decision_id"))
    previous_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.release_id"))
    restores_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.release_id"))
    actor: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]


class DecisionRow(Base):
    """One answered request: the columns to look it up by, and the whole record."""

    __tablename__ = "decisions"
    __table_args__ = (Index(None, "time", "decision_id"),)

    decision_id: Mapped[str] = mapped_column(primary_key=True)
    trace_id: Mapped[str] = mapped_column(index=True)
    time: Mapped[datetime]
    endpoint: Mapped[str]
    caller: Mapped[str]
    release_id: Mapped[str]
    model_version: Mapped[str]
    degraded: Mapped[bool]
    record: Mapped[dict[str, Any]]


class FeedbackRow(Base):
    """What a caller said last of a passage of a decision, or of its answer, whose `passage_id` is empty."""

    __tablename__ = "feedback"
    __table_args__ = (
        CheckConstraint("kind IN ('click', 'thumb', 'citation')", name="kind"),
        CheckConstraint("value >= -1 AND value <= 1", name="value"),
    )

    decision_id: Mapped[str] = mapped_column(ForeignKey("decisions.decision_id", ondelete="CASCADE"), primary_key=True)
    passage_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    caller: Mapped[str]
    time: Mapped[datetime] = mapped_column(index=True)


class IncidentRow(Base):
    """Something that a person should look at; open until `closed` is set."""

    __tablename__ = "incidents"
    __table_args__ = (
        CheckConstraint("kind IN ('drift', 'gate', 'rollback', 'fault')", name="kind"),
        Index(
            "uq_incidents_one_open",
            "dedupe_key",
            unique=True,
            sqlite_where=text("closed IS NULL"),
            postgresql_where=text("closed IS NULL"),
        ),
    )

    incident_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    opened: Mapped[datetime] = mapped_column(index=True)
    evidence: Mapped[dict[str, Any]]
    dedupe_key: Mapped[str | None]
    closed: Mapped[datetime | None]
    closed_by: Mapped[str | None]
    closed_note: Mapped[str | None] = mapped_column(Text)


class CorrectionRow(Base):
    """A correction of a quarantined row, in force until it is withdrawn. Triggers refuse every other change."""

    __tablename__ = "corrections"
    __table_args__ = (
        CheckConstraint("table_name IN ('documents', 'queries', 'judgments')", name="table_name"),
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawn"),
        Index(
            "uq_corrections_one_in_force",
            "source",
            "table_name",
            "position",
            unique=True,
            sqlite_where=text("withdrawn_at IS NULL"),
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    correction_id: Mapped[str] = mapped_column(index=True)
    source: Mapped[str]
    table_name: Mapped[str]
    position: Mapped[str] = mapped_column(Text)
    digest: Mapped[str]
    row: Mapped[dict[str, Any]]
    replaces: Mapped[dict[str, Any]]
    actor: Mapped[str]
    note: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_note: Mapped[str | None] = mapped_column(Text)
