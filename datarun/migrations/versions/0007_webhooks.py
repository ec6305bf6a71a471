"""Webhooks, what was tried of them lately, and which gateway sends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "intake"


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def upgrade() -> None:
    op.create_table(
        "webhook",
        sa.Column("webhook_id", sa.Integer, primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("kinds", ARRAY(sa.Text), nullable=False),
        sa.Column("raw_data_id", sa.Integer),
        sa.Column("submission_id", sa.Integer),
        sa.Column("fold_id", sa.Integer),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("old_secret", sa.LargeBinary),
        _moment("old_secret_until"),
        sa.Column("offsets", ARRAY(sa.BigInteger), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False, server_default="1"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _moment("failing_since"),
        _moment("next_try_at"),
        sa.Column("last_error", sa.Text),
        _moment("delivered_at"),
        _moment("disabled_at"),
        sa.Column("disabled_reason", sa.Text),
        _now("created_at"),
        schema=SCHEMA,
    )
    op.create_index("webhook_owner", "webhook", ["username", "webhook_id"], schema=SCHEMA)
    op.create_table(
        "webhook_delivery",
        sa.Column("delivery_id", sa.BigInteger, primary_key=True),
        sa.Column("webhook_id", sa.Integer, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("seconds", sa.Float, nullable=False),
        _now("tried_at"),
        _moment("next_try_at"),
        schema=SCHEMA,
    )
    op.create_index("webhook_delivery_of", "webhook_delivery", ["webhook_id", "delivery_id"], schema=SCHEMA)
    op.create_table(
        "office",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Integer, nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("office", "webhook_delivery", "webhook"):
        op.drop_table(table, schema=SCHEMA)
