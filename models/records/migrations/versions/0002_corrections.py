"""Corrections of quarantined rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_FIXED = (
    "sequence", "correction_id", "source", "table_name", "position", "digest", "row", "replaces", "actor", "note",
    "created_at",
)  # fmt: skip


def upgrade() -> None:
    """Make the table, and the triggers by which a correction can be withdrawn once and not changed."""
    op.create_table(
        "corrections",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("correction_id", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("table_name", sa.String(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("replaces", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("withdrawn_at", _TIME),
        sa.Column("withdrawn_by", sa.String()),
        sa.Column("withdrawn_note", sa.Text()),
        sa.CheckConstraint(
            "table_name IN ('documents', 'queries', 'judgments')", name=op.f("ck_corrections_table_name")
        ),
        sa.CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name=op.f("ck_corrections_withdrawn")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_corrections")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_corrections_correction_id"), "corrections", ["correction_id"])
    in_force = sa.text("withdrawn_at IS NULL")
    op.create_index(
        "uq_corrections_one_in_force",
        "corrections",
        ["source", "table_name", "position"],
        unique=True,
        sqlite_where=in_force,
        postgresql_where=in_force,
    )
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgresql_triggers()


def downgrade() -> None:
    """Drop the table: the corrections are lost."""
    op.drop_table("corrections")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION rerankops_check_correction_change()")


def _sqlite_triggers() -> None:
    same = " AND ".join(f'NEW."{column}" IS OLD."{column}"' for column in _FIXED)
    op.execute(
        "CREATE TRIGGER corrections_append_only BEFORE UPDATE ON corrections "
        f"WHEN NOT (OLD.withdrawn_at IS NULL AND NEW.withdrawn_at IS NOT NULL AND {same}) "
        "BEGIN SELECT RAISE(ABORT, 'corrections is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER corrections_no_delete BEFORE DELETE ON corrections "
        "BEGIN SELECT RAISE(ABORT, 'corrections is append-only'); END"
    )


def _postgresql_triggers() -> None:
    # JSON has no equality of its own.
    same = " AND ".join(f'NEW."{column}"::text IS NOT DISTINCT FROM OLD."{column}"::text' for column in _FIXED)
    op.execute(
        "CREATE FUNCTION rerankops_check_correction_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF OLD.withdrawn_at IS NULL AND NEW.withdrawn_at IS NOT NULL AND {same} THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION 'corrections is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER corrections_append_only BEFORE UPDATE ON corrections "
        "FOR EACH ROW EXECUTE FUNCTION rerankops_check_correction_change()"
    )
    op.execute(
        "CREATE TRIGGER corrections_no_change BEFORE DELETE OR TRUNCATE ON corrections "
        "FOR EACH STATEMENT EXECUTE FUNCTION rerankops_refuse_change()"
    )
