"""What callers say of answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; its rows go with their decisions."""
    op.create_table(
        "feedback",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("passage_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('click', 'thumb', 'citation')", name=op.f("ck_feedback_kind")),
        sa.CheckConstraint("value >= -1 AND value <= 1", name=op.f("ck_feedback_value")),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.decision_id"],
            name=op.f("fk_feedback_decision_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("decision_id", "passage_id", "kind", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_time"), "feedback", ["time"])


def downgrade() -> None:
    """Drop the table: what was said is lost."""
    op.drop_table("feedback")
