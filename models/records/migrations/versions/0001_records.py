"""Gate decisions, the release ledger, decisions and incidents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)

_FIXED = (
    "sequence", "release_id", "action", "bundle_version", "model_version", "index_version", "corpus_version",
    "large_version", "compact_version", "settings_digest", "gate_decision_id", "previous_release_id",
    "restores_release_id", "actor", "reason", "created_at",
)  # fmt: skip


def upgrade() -> None:
    """Make the tables, and the triggers that keep the ledger append-only."""
    op.create_table(
        "gate_decisions",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("candidate_version", sa.String(), nullable=False),
        sa.Column("champion_version", sa.String()),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.CheckConstraint("verdict IN ('released', 'refused', 'current')", name=op.f("ck_gate_decisions_verdict")),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_gate_decisions")),
    )
    op.create_index(op.f("ix_gate_decisions_candidate_version"), "gate_decisions", ["candidate_version"])

    op.create_table(
        "releases",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("bundle_version", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("index_version", sa.String(), nullable=False),
        sa.Column("corpus_version", sa.String(), nullable=False),
        sa.Column("large_version", sa.String(), nullable=False),
        sa.Column("compact_version", sa.String(), nullable=False),
        sa.Column("settings_digest", sa.String(), nullable=False),
        sa.Column("gate_decision_id", sa.String()),
        sa.Column("previous_release_id", sa.String()),
        sa.Column("restores_release_id", sa.String()),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("activated_at", _TIME),
        sa.CheckConstraint("action IN ('release', 'rollback')", name=op.f("ck_releases_action")),
        sa.CheckConstraint("state IN ('pending', 'active', 'abandoned')", name=op.f("ck_releases_state")),
        sa.CheckConstraint(
            "(action = 'rollback') = (restores_release_id IS NOT NULL)", name=op.f("ck_releases_restores")
        ),
        sa.CheckConstraint("(state = 'active') = (activated_at IS NOT NULL)", name=op.f("ck_releases_activated")),
        sa.ForeignKeyConstraint(
            ["gate_decision_id"], ["gate_decisions.decision_id"], name=op.f("fk_releases_gate_decision_id")
        ),
        sa.ForeignKeyConstraint(
            ["previous_release_id"], ["releases.release_id"], name=op.f("fk_releases_previous_release_id")
        ),
        sa.ForeignKeyConstraint(
            ["restores_release_id"], ["releases.release_id"], name=op.f("fk_releases_restores_release_id")
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_releases")),
        sa.UniqueConstraint("release_id", name=op.f("uq_releases_release_id")),
        sqlite_autoincrement=True,
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "uq_releases_one_pending", "releases", ["state"], unique=True, sqlite_where=pending, postgresql_where=pending
    )

    op.create_table(
        "decisions",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("degraded", sa.Boolean(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_decisions")),
    )
    op.create_index(op.f("ix_decisions_time_decision_id"), "decisions", ["time", "decision_id"])
    op.create_index(op.f("ix_decisions_trace_id"), "decisions", ["trace_id"])

    op.create_table(
        "incidents",
        sa.Column("incident_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("opened", _TIME, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("dedupe_key", sa.String()),
        sa.Column("closed", _TIME),
        sa.CheckConstraint("kind IN ('drift', 'slo', 'gate', 'rollback', 'fault')", name=op.f("ck_incidents_kind")),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("pk_incidents")),
    )
    op.create_index(op.f("ix_incidents_opened"), "incidents", ["opened"])
    still_open = sa.text("closed IS NULL")
    op.create_index(
        "uq_incidents_one_open",
        "incidents",
        ["dedupe_key"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgresql_triggers()


def downgrade() -> None:
    """Drop everything: the ledger and the decisions are lost."""
    op.drop_table("incidents")
    op.drop_table("decisions")
    op.drop_table("releases")
    op.drop_table("gate_decisions")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION rerankops_refuse_change()")
        op.execute("DROP FUNCTION rerankops_check_release_change()")


def _sqlite_triggers() -> None:
    same = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in _FIXED)
    op.execute(
        "CREATE TRIGGER releases_append_only BEFORE UPDATE ON releases "
        f"WHEN NOT (OLD.state = 'pending' AND NEW.state IN ('active', 'abandoned') AND {same}) "
        "BEGIN SELECT RAISE(ABORT, 'releases is append-only'); END"
    )
    for table, event in (("releases", "DELETE"), ("gate_decisions", "DELETE"), ("gate_decisions", "UPDATE")):
        op.execute(
            f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def _postgresql_triggers() -> None:
    same = " AND ".join(f"NEW.{column} IS NOT DISTINCT FROM OLD.{column}" for column in _FIXED)
    op.execute(
        "CREATE FUNCTION rerankops_check_release_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF OLD.state = 'pending' AND NEW.state IN ('active', 'abandoned') AND {same} THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION 'releases is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE FUNCTION rerankops_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER releases_append_only BEFORE UPDATE ON releases "
        "FOR EACH ROW EXECUTE FUNCTION rerankops_check_release_change()"
    )
    for table, events in (("releases", "DELETE OR TRUNCATE"), ("gate_decisions", "UPDATE OR DELETE OR TRUNCATE")):
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE {events} ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION rerankops_refuse_change()"
        )
