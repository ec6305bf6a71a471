"""First answers to requests with an Idempotency-Key, and folds found by submission, requester and time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    op.create_table(
        "answered",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request_digest", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema=SCHEMA,
    )
    op.create_index("answered_at", "answered", ["answered_at"], schema=SCHEMA)
    op.create_index("fold_submission", "fold", ["submission_id"], schema=SCHEMA)
    op.create_index("fold_requester", "fold", ["requested_by", "fold_id"], schema=SCHEMA)
    op.create_index("fold_accepted", "fold", ["accepted_at"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_index("fold_accepted", "fold", schema=SCHEMA)
    op.drop_index("fold_requester", "fold", schema=SCHEMA)
    op.drop_index("fold_submission", "fold", schema=SCHEMA)
    op.drop_table("answered", schema=SCHEMA)
