"""Accounts that are revoked, whose submissions are whose, and participants' own views of what is new."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "intake"


def upgrade() -> None:
    op.add_column("account", sa.Column("revoked_at", sa.DateTime(timezone=True)), schema=SCHEMA)
    op.add_column("submission", sa.Column("submitted_by", sa.Text), schema=SCHEMA)
    # A submission is its first fold's sender's.
    op.execute("""
        update intake.submission s set submitted_by = (
            select f.requested_by from intake.fold f where f.submission_id = s.submission_id
            order by f.accepted_at, f.fold_id limit 1)""")
    op.create_index("submission_owner", "submission", ["submitted_by"], schema=SCHEMA)
    op.add_column("fetch_claim", sa.Column("view", sa.Text, nullable=False, server_default=""), schema=SCHEMA)
    op.drop_constraint("fetch_claim_pkey", "fetch_claim", schema=SCHEMA)
    op.create_primary_key("fetch_claim_pkey", "fetch_claim", ["fold_id", "attempt", "view"], schema=SCHEMA)


def downgrade() -> None:
    op.execute("delete from intake.fetch_claim where view <> ''")
    op.drop_constraint("fetch_claim_pkey", "fetch_claim", schema=SCHEMA)
    op.create_primary_key("fetch_claim_pkey", "fetch_claim", ["fold_id", "attempt"], schema=SCHEMA)
    op.drop_column("fetch_claim", "view", schema=SCHEMA)
    op.drop_index("submission_owner", "submission", schema=SCHEMA)
    op.drop_column("submission", "submitted_by", schema=SCHEMA)
    op.drop_column("account", "revoked_at", schema=SCHEMA)
