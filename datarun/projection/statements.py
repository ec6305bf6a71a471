"""The SQL of the projection: one set-based upsert a register, fed with its rows as one JSON array.

Measured on one connection, rows of the run register: up to 20 rows JSON is the fastest of `execute_values`, COPY into
a staging table, arrays and JSON; at a thousand COPY writes 45 000 rows/s and JSON 35 000, for half of Python's CPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from datarun.lifecycle import FIRST_TERMINAL

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_UPSERT = """
insert into "{schema}".{table} as kept ({columns})
select {columns} from json_populate_recordset(null::"{schema}".{table}, %s::json)
on conflict ({key}) do update set {assignments} where {newer}
"""

STAY = "select pg_advisory_xact_lock_shared(hashtext('datarun.swap.{schema}'))"
"""Until the transaction ends its schema keeps its name: a swap comes before it or after it, never in its middle."""

TAKE_AWAY = "select pg_advisory_xact_lock(hashtext('datarun.swap.{schema}'))"
"""Waits for the projectors of a schema to end their transactions, and keeps them from beginning others."""

BLANK_FOLD = dict.fromkeys(
    (
        "request_attempt", "request_delivery", "run_attempt", "run_delivery", "run_rank", "train_time",
        "train_cpu_time", "train_memory", "validation_time", "test_time", "test_cpu_time", "test_memory",
        "fetched_attempt",
    ),
    0,
)  # fmt: skip
"""What the columns of a fold are that no register has filled yet and that are never null."""

KNOWN_FOLDS = 'select fold_id from "{schema}".fold where fold_id = any(%s)'

LOCK_OFFSETS = f"""{STAY};
select topic, partition, next_offset from "{{schema}}".projection_offset
where (topic, partition) in %s order by topic, partition for update
"""  # noqa: S608 - constants

ADD_OFFSETS = """
insert into "{schema}".projection_offset (topic, partition, next_offset)
select topic, partition, 0 from json_populate_recordset(null::"{schema}".projection_offset, %s::json)
order by topic, partition
on conflict do nothing
"""

MOVE_OFFSETS = """
update "{schema}".projection_offset as kept set next_offset = moved.next_offset
from json_populate_recordset(null::"{schema}".projection_offset, %s::json) as moved
where (kept.topic, kept.partition) = (moved.topic, moved.partition)
"""

BURY = """
insert into "{schema}".dead_letter select * from json_populate_recordset(null::"{schema}".dead_letter, %s::json)
on conflict do nothing
"""

TAKE_TURNS = "select pg_advisory_xact_lock(hashtext('datarun.projection.{schema}'))"
"""Projectors of one read model write one after the other: they meet at the same folds, and would deadlock there."""

NOTIFY = "select pg_notify('datarun_projected', '')"
"""Wakes who waits for its own write to be projected; sent by the commit."""


@dataclass(frozen=True, slots=True)
class Register:
    """Some columns of a row that one kind of event fills; a row that is `newer` replaces them all."""

    table: str
    key: str
    columns: tuple[str, ...]
    newer: str
    events: tuple[str, ...]
    """What it is filled from."""
    shared: tuple[str, ...] = ()
    """Columns another register fills with the better right; they are left to it once `unless` is true."""
    unless: str = ""


def _run_order(row: str) -> str:
    terminal = f"{row}.run_rank >= {int(FIRST_TERMINAL)}"
    delivery = f"case when {terminal} then 0 else {row}.run_delivery end"
    rank = f"case when {terminal} then 0 else {row}.run_rank end"
    return f"({row}.run_attempt, {terminal}, {delivery}, {rank})"


def _request_order(row: str) -> str:
    position = f'{row}.request_topic collate "C", {row}.request_partition, {row}.request_offset'
    return f"({row}.request_attempt, {row}.request_delivery, {position})"


REQUEST = Register(
    table="fold",
    key="fold_id",
    columns=(
        "request_attempt", "request_delivery", "submission_id", "submission_version", "raw_data_id", "priority",
        "train_is", "test_is", "task_id", "requested_by", "requested_at",
        "request_topic", "request_partition", "request_offset",
    ),
    newer=f"{_request_order('excluded')} > {_request_order('kept')}",
    events=("FoldRequested",),
)  # fmt: skip
RUN = Register(
    table="fold",
    key="fold_id",
    columns=(
        "run_attempt", "run_delivery", "run_rank", "runner_id", "run_at", "run_partition", "run_offset", "stage",
        "cause", "fault", "message", "log",
        "full_train_predictions", "full_train_shape", "test_predictions", "test_shape", "train_time", "train_cpu_time",
        "train_memory", "validation_time", "test_time", "test_cpu_time", "test_memory", "sandbox_level",
    ),
    newer=f"{_run_order('excluded')} > {_run_order('kept')}",
    events=("FoldStarted", "FoldTrained", "FoldTested", "FoldFailed", "FoldLost", "FoldHandedBack", "FoldCancelled"),
    shared=("submission_id", "raw_data_id"),
    unless="kept.request_attempt > 0",
)  # fmt: skip
FETCH = Register(
    "fold",
    "fold_id",
    ("fetched_attempt",),
    "excluded.fetched_attempt > kept.fetched_attempt",
    ("PredictionsFetched",),
)
SUBMISSION = Register(
    "submission",
    "submission_id",
    ("version", "raw_data_id"),
    "(excluded.version, excluded.raw_data_id) > (kept.version, kept.raw_data_id)",
    ("FoldRequested",),
)
UPLOAD = Register(
    "dataset",
    "raw_data_id",
    ("name", "target_column", "workflow_elements", "files", "uploaded_by", "uploaded_at"),
    "kept.uploaded_at is null",
    ("DataUploaded",),
)
SPLIT_REQUEST = Register(
    "dataset",
    "raw_data_id",
    ("split_attempt", "split_task_id", "split_request_offset"),
    "excluded.split_attempt > kept.split_attempt",
    ("SplitRequested",),
)
SPLIT_RESULT = Register(
    "dataset",
    "raw_data_id",
    ("result_attempt", "split", "split_error", "split_at"),
    "excluded.result_attempt > kept.result_attempt",
    ("DataSplit", "SplitFailed"),
)
HEARTBEAT = Register(
    "runner",
    "runner_id",
    ("sequence", "seen_at", "stopping", "heartbeat"),
    "excluded.sequence > kept.sequence",
    ("RunnerHeartbeat",),
)
ALL = (UPLOAD, SPLIT_REQUEST, SPLIT_RESULT, SUBMISSION, REQUEST, RUN, FETCH, HEARTBEAT)
"""Every register, in the order in which a batch fills them."""


def in_schema(statement: str, schema: str) -> str:
    """Return a statement of this module for the tables of a schema."""
    if not _SCHEMA.fullmatch(schema):
        message = f"{schema!r} is not a schema's name"
        raise ValueError(message)
    return statement.replace("{schema}", schema)


@lru_cache
def upsert(register: Register, schema: str) -> str:
    """Return the statement that brings a register's rows, one JSON array, into their table."""
    assignments = [f"{name} = excluded.{name}" for name in register.columns]
    assignments += [
        f"{name} = case when {register.unless} then kept.{name} else excluded.{name} end" for name in register.shared
    ]
    parts = {
        "{table}": register.table,
        "{key}": register.key,
        "{columns}": ", ".join((register.key, *register.columns, *register.shared)),
        "{assignments}": ", ".join(assignments),
        "{newer}": register.newer,
    }
    statement = _UPSERT
    for name, text in parts.items():
        statement = statement.replace(name, text)
    return in_schema(statement, schema)
