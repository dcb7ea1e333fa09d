"""Who closed an incident, and why; no incidents of kind slo, which nothing opened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and take the kind out of those that are allowed."""
    op.execute("UPDATE incidents SET kind = 'fault' WHERE kind = 'slo'")
    columns = (sa.Column("closed_by", sa.String()), sa.Column("closed_note", sa.Text()))
    _change(columns, (), "kind IN ('drift', 'gate', 'rollback', 'fault')")


def downgrade() -> None:
    """Drop the columns: what was said of closed incidents is lost."""
    _change((), ("closed_by", "closed_note"), "kind IN ('drift', 'slo', 'gate', 'rollback', 'fault')")


def _change(added: tuple[sa.Column[str], ...], dropped: tuple[str, ...], kinds: str) -> None:
    # SQLite cannot change a constraint: there the table is made anew, with its rows and indexes.
    name = op.f("ck_incidents_kind")
    with op.batch_alter_table("incidents") as table:
        table.drop_constraint(name, type_="check")
        table.create_check_constraint(name, sa.text(kinds))
        for column in added:
            table.add_column(column)
        for column_name in dropped:
            table.drop_column(column_name)
