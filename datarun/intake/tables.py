"""The tables of the write side: who claimed which name or id first, and the events that are owed to the log."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA = "intake"
metadata = MetaData(schema=SCHEMA)


def _by_producer(name: str = "by_producer") -> Column[object]:
    """Return a column that tells whether a claim came by the log alone, not by a gateway."""
    return Column(name, Boolean, nullable=False, server_default="false")


def _moment(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


account = Table(
    "account",
    metadata,
    Column("username", Text, primary_key=True),
    # argon2id, with its parameters and salt
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    _moment("created_at"),
    Column("revoked_at", DateTime(timezone=True)),
)

token = Table(
    "token",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    # Its first characters, by which people know it
    Column("prefix", Text, nullable=False),
    Column("username", Text, nullable=False),
    # Where there is no account of this name
    Column("role", Text, nullable=False),
    _moment("created_at"),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)

dataset_id = Sequence("dataset_id", metadata=metadata, data_type=Integer)

dataset = Table(
    "dataset",
    metadata,
    Column("raw_data_id", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("target_column", Text, nullable=False),
    Column("workflow_elements", Text, nullable=False),
    Column("files", JSONB, nullable=False),
    # Data rows of a standard dataset's CSV; what a specific.py reads is not counted.
    Column("rows", Integer),
    Column("uploaded_by", Text, nullable=False),
    _moment("accepted_at"),
    # The newest split asked for; 0 is none
    Column("split_attempt", Integer, nullable=False, server_default="0"),
    Column("split_request", JSONB),
    Column("split_task_id", Text),
    _by_producer(),
    _by_producer("split_by_producer"),
    UniqueConstraint("name", name="dataset_name"),
)

submission = Table(
    "submission",
    metadata,
    Column("submission_id", Integer, primary_key=True, autoincrement=False),
    Column("raw_data_id", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("files", JSONB, nullable=False),
    Column("files_digest", Text, nullable=False),
    _moment("accepted_at"),
    # Who sent its first version; whoever forces it later, it stays theirs
    Column("submitted_by", Text),
    _by_producer(),
)

Index("submission_owner", submission.c.submitted_by)

fold = Table(
    "fold",
    metadata,
    Column("fold_id", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, nullable=False),
    Column("submission_id", Integer, nullable=False),
    Column("submission_version", Integer, nullable=False),
    Column("raw_data_id", Integer, nullable=False),
    Column("priority", Text, nullable=False),
    Column("train_is", Text, nullable=False),
    Column("test_is", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    _moment("accepted_at"),
    _by_producer(),
)
"""A fold's newest accepted attempt; blobs are named by `sha256:size`."""

Index("fold_dataset", fold.c.raw_data_id)
Index("fold_submission", fold.c.submission_id)
Index("fold_requester", fold.c.requested_by, fold.c.fold_id)
Index("fold_accepted", fold.c.accepted_at)

cancellation = Table(
    "cancellation",
    metadata,
    Column("fold_id", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("cancelled_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _moment("cancelled_at"),
)
"""Attempts that somebody cancelled while no end of them was known."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("ce_id", Uuid, nullable=False),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    # The dataset whose split this request must carry and which is not known yet
    Column("waiting_for", Integer),
    # The gateway that sends it; another one takes over when that one is gone
    Column("owner", Integer, nullable=False),
    _moment("accepted_at"),
    # The log's acknowledgement
    Column("sent_at", DateTime(timezone=True)),
    Column("partition", Integer),
    Column("offset", BigInteger),
    UniqueConstraint("ce_id", name="outbox_ce_id"),
)

Index("outbox_unsent", outbox.c.id, postgresql_where=text("sent_at is null"))
Index("outbox_unsent_key", outbox.c.topic, outbox.c.key, outbox.c.id, postgresql_where=text("sent_at is null"))

fetch_claim = Table(
    "fetch_claim",
    metadata,
    Column("fold_id", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("fetch_id", Uuid, nullable=False),
    _moment("claimed_at"),
    # 'infinity' once the last byte was delivered
    Column("claimed_until", DateTime(timezone=True), nullable=False),
    # A participant's name: what is new to them is their own matter; '' is everybody else's common view
    Column("view", Text, primary_key=True, server_default=""),
)
"""Predictions that a client is fetching, or fetched while the read model does not say so yet."""

Index("fetch_claim_fetch", fetch_claim.c.fetch_id)

answered = Table(
    "answered",
    metadata,
    Column("username", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_digest", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    _moment("answered_at"),
)
"""First answers to requests that came with an Idempotency-Key."""

Index("answered_at", answered.c.answered_at)

cursor = Table(
    "cursor",
    metadata,
    Column("username", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # By partition of fold-events, the offset behind all that was acknowledged
    Column("offsets", ARRAY(BigInteger), nullable=False),
    _moment("moved_at"),
)
"""How far an account has read what came of folds."""

webhook = Table(
    "webhook",
    metadata,
    Column("webhook_id", Integer, primary_key=True),
    Column("username", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("raw_data_id", Integer),
    Column("submission_id", Integer),
    Column("fold_id", Integer),
    # A signature is made with it, so that a digest would not do
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary),
    Column("old_secret_until", DateTime(timezone=True)),
    # By partition of fold-events, the offset behind all that was delivered or not wanted
    Column("offsets", ARRAY(BigInteger), nullable=False),
    # Raised when it begins anew, so that who delivered before stops
    Column("generation", Integer, nullable=False, server_default="1"),
    # How often the next message was tried
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failing_since", DateTime(timezone=True)),
    Column("next_try_at", DateTime(timezone=True)),
    Column("last_error", Text),
    Column("delivered_at", DateTime(timezone=True)),
    Column("disabled_at", DateTime(timezone=True)),
    Column("disabled_reason", Text),
    _moment("created_at"),
)
"""Where accounts want to be told of what happens to folds, and how far they were."""

Index("webhook_owner", webhook.c.username, webhook.c.webhook_id)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True),
    Column("webhook_id", Integer, nullable=False),
    Column("message_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
    # event, ping or redelivery
    Column("cause", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("seconds", Float, nullable=False),
    _moment("tried_at"),
    Column("next_try_at", DateTime(timezone=True)),
)
"""What was tried of each webhook lately."""

Index("webhook_delivery_of", webhook_delivery.c.webhook_id, webhook_delivery.c.delivery_id)

office = Table(
    "office",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Integer, nullable=False),
    Column("leased_until", DateTime(timezone=True), nullable=False),
)
"""What one gateway does for all."""

claim_offset = Table(
    "claim_offset",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)
"""How far the log has been read for claims that did not come by a gateway."""
