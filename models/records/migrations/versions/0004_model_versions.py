"""Versions of a release's models by tier, instead of a column for each tier."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_BEFORE = (
    "sequence", "release_id", "action", "bundle_version", "model_version", "index_version", "corpus_version",
)  # fmt: skip
_AFTER = (
    "settings_digest", "gate_decision_id", "previous_release_id", "restores_release_id", "actor", "reason",
    "created_at",
)  # fmt: skip
_SETTLED = ("state", "activated_at")
_BY_TIER = ("large_version", "compact_version")


def upgrade() -> None:
    """Carry both columns over into one."""
    if op.get_bind().dialect.name == "sqlite":
        by_tier = "json_object('large', large_version, 'compact', compact_version)"
        _rebuild_sqlite([sa.Column("model_versions", sa.JSON(), nullable=False)], {"model_versions": by_tier})
    else:
        _drop_postgresql_trigger()
        op.add_column("releases", sa.Column("model_versions", sa.JSON()))
        op.execute(
            "UPDATE releases SET model_versions = json_build_object('large', large_version, 'compact', compact_version)"
        )
        op.alter_column("releases", "model_versions", nullable=False)
        for name in _BY_TIER:
            op.drop_column("releases", name)
        _make_postgresql_trigger(["model_versions"])


def downgrade() -> None:
    """Carry the versions of the large and of the compact model back; those of other tiers are lost."""
    columns = [sa.Column(name, sa.String(), nullable=False) for name in _BY_TIER]
    if op.get_bind().dialect.name == "sqlite":
        tiers = {name: f"json_extract(model_versions, '$.{name.removesuffix('_version')}')" for name in _BY_TIER}
        _rebuild_sqlite(columns, tiers)
    else:
        _drop_postgresql_trigger()
        for name in _BY_TIER:
            op.add_column("releases", sa.Column(name, sa.String()))
        op.execute(
            "UPDATE releases SET "
            + ", ".join(f"{name} = model_versions ->> '{name.removesuffix('_version')}'" for name in _BY_TIER)
        )
        for name in _BY_TIER:
            op.alter_column("releases", name, nullable=False)
        op.drop_column("releases", "model_versions")
        _make_postgresql_trigger(_BY_TIER)


def _rebuild_sqlite(columns: list[sa.Column], values: dict[str, str]) -> None:
    """Make the table anew with `columns` in the place of what they are computed from by `values`: SQLite adds no column
    that must hold a value, and keeps triggers and indexes with the table."""
    op.create_table(
        "releases_new",
        sa.Column("sequence", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("release_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("bundle_version", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("index_version", sa.String(), nullable=False),
        sa.Column("corpus_version", sa.String(), nullable=False),
        *columns,
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
        # To the new table: SQLite renames it here too, while references to the old one would stop its being dropped.
        sa.ForeignKeyConstraint(
            ["previous_release_id"], ["releases_new.release_id"], name=op.f("fk_releases_previous_release_id")
        ),
        sa.ForeignKeyConstraint(
            ["restores_release_id"], ["releases_new.release_id"], name=op.f("fk_releases_restores_release_id")
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_releases")),
        sa.UniqueConstraint("release_id", name=op.f("uq_releases_release_id")),
        sqlite_autoincrement=True,
    )
    kept = (*_BEFORE, *_AFTER, *_SETTLED)
    op.execute(
        f"INSERT INTO releases_new ({', '.join((*kept, *values))}) "
        f"SELECT {', '.join((*kept, *values.values()))} FROM releases ORDER BY sequence"
    )
    op.drop_table("releases")
    op.rename_table("releases_new", "releases")
    pending = sa.text("state = 'pending'")
    op.create_index("uq_releases_one_pending", "releases", ["state"], unique=True, sqlite_where=pending)
    fixed = (*_BEFORE, *values, *_AFTER)
    same = " AND ".join(f"NEW.{column} IS OLD.{column}" for column in fixed)
    op.execute(
        "CREATE TRIGGER releases_append_only BEFORE UPDATE ON releases "
        f"WHEN NOT (OLD.state = 'pending' AND NEW.state IN ('active', 'abandoned') AND {same}) "
        "BEGIN SELECT RAISE(ABORT, 'releases is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER releases_no_delete BEFORE DELETE ON releases "
        "BEGIN SELECT RAISE(ABORT, 'releases is append-only'); END"
    )


def _drop_postgresql_trigger() -> None:
    op.execute("DROP TRIGGER releases_append_only ON releases")


def _make_postgresql_trigger(columns: Sequence[str]) -> None:
    # JSON has no equality of its own.
    fixed = (*_BEFORE, *columns, *_AFTER)
    same = " AND ".join(f"NEW.{column}::text IS NOT DISTINCT FROM OLD.{column}::text" for column in fixed)
    op.execute(
        "CREATE OR REPLACE FUNCTION rerankops_check_release_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF OLD.state = 'pending' AND NEW.state IN ('active', 'abandoned') AND {same} THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION 'releases is append-only' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER releases_append_only BEFORE UPDATE ON releases "
        "FOR EACH ROW EXECUTE FUNCTION rerankops_check_release_change()"
    )
