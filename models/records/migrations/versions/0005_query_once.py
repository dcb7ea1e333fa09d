"""The query of a decision is in its record alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the column, which said again what the record says."""
    op.drop_column("decisions", "query")


def downgrade() -> None:
    """Bring the column back from the records."""
    op.add_column("decisions", sa.Column("query", sa.Text(), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("UPDATE decisions SET query = json_extract(record, '$.query')")
    else:
        # PostgreSQL has no NUL in text.
        op.execute("UPDATE decisions SET query = replace(record::text, '\\u0000', '\\ufffd')::json ->> 'query'")
        op.alter_column("decisions", "query", server_default=None)
