"""The tables of the read model.

A fold's row is two registers that commute: what was asked for (the request of the highest attempt, delivery)
and what happened (the highest attempt; a terminal event before any other, the first terminal of the log winning).
"""

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
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from datarun.readmodel import SCHEMA

metadata = MetaData(schema=SCHEMA)

dataset = Table(
    "dataset",
    metadata,
    Column("raw_data_id", Integer, primary_key=True, autoincrement=False),
    # DataUploaded
    Column("name", Text),
    Column("target_column", Text),
    Column("workflow_elements", Text),
    Column("files", JSONB),
    Column("uploaded_by", Text),
    Column("uploaded_at", DateTime(timezone=True)),
    # The request register: SplitRequested of the highest attempt
    Column("split_attempt", Integer, nullable=False, server_default="0"),
    Column("split_task_id", Text),
    Column("split_request_offset", BigInteger),
    # The result register: DataSplit or SplitFailed of the highest attempt
    Column("result_attempt", Integer, nullable=False, server_default="0"),
    Column("split", JSONB),
    Column("split_error", Text),
    Column("split_at", DateTime(timezone=True)),
)

submission = Table(
    "submission",
    metadata,
    Column("submission_id", Integer, primary_key=True, autoincrement=False),
    Column("raw_data_id", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)

fold = Table(
    "fold",
    metadata,
    Column("fold_id", Integer, primary_key=True, autoincrement=False),
    # The request register: FoldRequested of the highest (attempt, delivery)
    Column("request_attempt", Integer, nullable=False, server_default="0"),
    Column("request_delivery", SmallInteger, nullable=False, server_default="0"),
    Column("submission_id", Integer),
    Column("submission_version", Integer),
    Column("raw_data_id", Integer),
    Column("priority", Text),
    Column("train_is", Text),
    Column("test_is", Text),
    Column("task_id", Text),
    Column("requested_by", Text),
    Column("requested_at", DateTime(timezone=True)),
    Column("request_topic", Text),
    Column("request_partition", Integer),
    Column("request_offset", BigInteger),
    # The run register: the highest (attempt, terminal, delivery, rank)
    Column("run_attempt", Integer, nullable=False, server_default="0"),
    Column("run_delivery", SmallInteger, nullable=False, server_default="0"),
    Column("run_rank", SmallInteger, nullable=False, server_default="0"),
    Column("runner_id", Text),
    Column("run_at", DateTime(timezone=True)),
    Column("run_partition", SmallInteger),
    Column("run_offset", BigInteger),
    Column("stage", Text),
    Column("cause", Text),
    Column("fault", Text),
    Column("message", Text),
    Column("log", Text),
    Column("full_train_predictions", Text),
    Column("full_train_shape", ARRAY(Integer)),
    Column("test_predictions", Text),
    Column("test_shape", ARRAY(Integer)),
    Column("train_time", Float, nullable=False, server_default="0"),
    Column("train_cpu_time", Float, nullable=False, server_default="0"),
    Column("train_memory", Float, nullable=False, server_default="0"),
    Column("validation_time", Float, nullable=False, server_default="0"),
    Column("test_time", Float, nullable=False, server_default="0"),
    Column("test_cpu_time", Float, nullable=False, server_default="0"),
    Column("test_memory", Float, nullable=False, server_default="0"),
    Column("sandbox_level", SmallInteger),
    # PredictionsFetched
    Column("fetched_attempt", Integer, nullable=False, server_default="0"),
)
"""Blobs are named by `sha256:size`; ranks are those of datarun.lifecycle."""

Index("fold_submission", fold.c.submission_id)
Index("fold_dataset", fold.c.raw_data_id, fold.c.fold_id)
Index("fold_requester", fold.c.requested_by, fold.c.fold_id)
Index(
    "fold_new",
    fold.c.raw_data_id,
    fold.c.fold_id,
    postgresql_where=text("run_rank = 9 and run_attempt = request_attempt and fetched_attempt < run_attempt"),
)
Index(
    "fold_open",
    fold.c.priority,
    fold.c.request_offset,
    postgresql_where=text(
        "request_attempt > run_attempt"
        " or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery)"
    ),
)
Index(
    "fold_unasked",
    fold.c.run_partition,
    fold.c.run_offset,
    postgresql_where=text("run_attempt > request_attempt"),
)
Index("fold_running", fold.c.fold_id, postgresql_where=text("run_rank between 1 and 3"))

runner = Table(
    "runner",
    metadata,
    Column("runner_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("seen_at", DateTime(timezone=True), nullable=False),
    Column("stopping", Boolean, nullable=False),
    Column("heartbeat", JSONB, nullable=False),
)

projection_offset = Table(
    "projection_offset",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", JSONB, nullable=False),
)
