"""Accounts, claims and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        _moment("created_at"),
        schema=SCHEMA,
    )
    _create_claims()
    _create_outbox()
    op.create_table(
        "fetch_claim",
        sa.Column("fold_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fetch_id", sa.Uuid, nullable=False),
        _moment("claimed_at"),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.create_index("fetch_claim_fetch", "fetch_claim", ["fetch_id"], schema=SCHEMA)


def downgrade() -> None:
    for table in ("fetch_claim", "outbox", "fold", "submission", "dataset", "account"):
        op.drop_table(table, schema=SCHEMA)
    op.execute(sa.schema.DropSequence(sa.Sequence("dataset_id", schema=SCHEMA)))


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())


def _create_claims() -> None:
    # Names and ids are claimed by insertion: the unique key decides a race.
    op.execute(sa.schema.CreateSequence(sa.Sequence("dataset_id", schema=SCHEMA, data_type=sa.Integer)))
    op.create_table(
        "dataset",
        sa.Column("raw_data_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("target_column", sa.Text, nullable=False),
        sa.Column("workflow_elements", sa.Text, nullable=False),
        sa.Column("files", JSONB, nullable=False),
        sa.Column("rows", sa.Integer),
        sa.Column("uploaded_by", sa.Text, nullable=False),
        _moment("accepted_at"),
        sa.Column("split_attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("split_request", JSONB),
        sa.Column("split_task_id", sa.Text),
        sa.UniqueConstraint("name", name="dataset_name"),
        schema=SCHEMA,
    )
    op.create_table(
        "submission",
        sa.Column("submission_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("raw_data_id", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("files", JSONB, nullable=False),
        sa.Column("files_digest", sa.Text, nullable=False),
        _moment("accepted_at"),
        schema=SCHEMA,
    )
    op.create_table(
        "fold",
        sa.Column("fold_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("submission_id", sa.Integer, nullable=False),
        sa.Column("submission_version", sa.Integer, nullable=False),
        sa.Column("raw_data_id", sa.Integer, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("train_is", sa.Text, nullable=False),
        sa.Column("test_is", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        _moment("accepted_at"),
        schema=SCHEMA,
    )
    op.create_index("fold_dataset", "fold", ["raw_data_id"], schema=SCHEMA)


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("ce_id", sa.Uuid, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("waiting_for", sa.Integer),
        sa.Column("owner", sa.Integer, nullable=False),
        _moment("accepted_at"),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.Column("partition", sa.Integer),
        sa.Column("offset", sa.BigInteger),
        sa.UniqueConstraint("ce_id", name="outbox_ce_id"),
        schema=SCHEMA,
    )
    unsent = sa.text("sent_at is null")
    op.create_index("outbox_unsent", "outbox", ["id"], schema=SCHEMA, postgresql_where=unsent)
    op.create_index("outbox_unsent_key", "outbox", ["topic", "key", "id"], schema=SCHEMA, postgresql_where=unsent)
