"""Claims that producers wrote into the log, and how far it has been read for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = "intake"
MARKS = (
    ("dataset", "by_producer"),
    ("dataset", "split_by_producer"),
    ("submission", "by_producer"),
    ("fold", "by_producer"),
)


def upgrade() -> None:
    for table, name in MARKS:
        op.add_column(table, sa.Column(name, sa.Boolean, nullable=False, server_default="false"), schema=SCHEMA)
    op.create_table(
        "claim_offset",
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("claim_offset", schema=SCHEMA)
    for table, name in MARKS:
        op.drop_column(table, name, schema=SCHEMA)
