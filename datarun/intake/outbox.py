"""The outbox, as named statements: events that were accepted and are owed to the log, each until its acknowledgement.

A row has an owner: the gateway that sends it. The owner holds an advisory lock for as long as it lives, so its rows
are taken over when it is gone and never before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json, execute_values

from datarun.events import Dataset, FoldRequested, Split
from datarun.log import Record

OWNER_LOCK = 1_885_010
ADOPTION_GRACE_SECONDS = 2
"""An owner that reconnects to Postgres has this long to take its lock again."""
KEPT_SECONDS = 600
"""How long an acknowledged row stays, for people who look."""


class Queued(NamedTuple):
    """A row of the outbox; `after` is the newest older row of its topic and key that is not in the log yet."""

    id: int
    record: Record
    after: int | None = None
    waits: bool = False
    """Whether it is not to be sent before a dataset is split."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event to owe: its record, who sends it, and the dataset whose split it must wait for."""

    record: Record
    owner: int
    waiting_for: int | None = None


_OLDER_UNSENT = """
    select max(older.id) from intake.outbox older
    where older.topic = outbox.topic and older.key = outbox.key and older.id < outbox.id and older.sent_at is null"""

_INSERT = f"""
insert into intake.outbox as outbox (ce_id, topic, key, value, headers, waiting_for, owner)
select ce_id, topic, key, value, headers, waiting_for, owner
from json_populate_recordset(null::intake.outbox, %s::json)
returning id, ({_OLDER_UNSENT})"""  # noqa: S608 - constants


def add(cursor: Cursor, entries: Sequence[Entry], *, first: str = "", told: Sequence[str] = ()) -> list[Queued]:
    """Owe events; the caller holds the lock under which their keys' order is decided.

    `first` is a statement to run before, on the same way to the server, with what it is told.
    """
    if not entries:
        return []
    rows = orjson.dumps([_row(entry) for entry in entries]).decode()
    cursor.execute(f"{first};{_INSERT}" if first else _INSERT, (*told, rows))
    return [
        Queued(id_, entry.record, after, entry.waiting_for is not None)
        for (id_, after), entry in zip(cursor.fetchall(), entries, strict=True)
    ]


def holds(cursor: Cursor, row: Queued) -> bool:
    """Tell whether this very row was committed; its headers say when it was made, to the microsecond."""
    cursor.execute(
        "select exists (select from intake.outbox where id = %s and headers = %s)", (row.id, Json(_headers(row.record)))
    )
    found = cursor.fetchone()
    return bool(found and found[0])


def mark_sent(cursor: Cursor, acknowledged: Iterable[tuple[int, int, int]]) -> None:
    """Record the log's acknowledgements: (id, partition, offset)."""
    # What a crash of Postgres makes of a mark is a record that is sent once more.
    cursor.execute(
        """
        set local synchronous_commit = off;
        update intake.outbox set sent_at = now(), partition = acked.partition, "offset" = acked.offset_
        from unnest(%s::bigint[], %s::integer[], %s::bigint[]) as acked (id, partition, offset_)
        where outbox.id = acked.id""",
        [f"{{{','.join(map(str, numbers))}}}" for numbers in zip(*acknowledged, strict=True)],
    )


def adopt(cursor: Cursor, owner: int, *, limit: int) -> int:
    """Take over the rows of gateways that are gone; returns how many."""
    cursor.execute(
        """
        update intake.outbox set owner = %(owner)s where id in (
            select id from intake.outbox
            where sent_at is null and owner <> %(owner)s
              and accepted_at < now() - make_interval(secs => %(grace)s)
              and not exists (
                select from pg_locks
                where locktype = 'advisory' and classid = %(lock)s::oid and objid = outbox.owner::oid and objsubid = 2
                  and granted and database = (select oid from pg_database where datname = current_database()))
            order by id limit %(limit)s for update skip locked)""",
        {"owner": owner, "grace": ADOPTION_GRACE_SECONDS, "lock": OWNER_LOCK, "limit": limit},
    )
    return cursor.rowcount


def unsent(cursor: Cursor, owner: int, *, except_ids: Sequence[int], limit: int) -> list[Queued]:
    """Return an owner's rows to send, oldest first, none of which would overtake an older row of its key."""
    cursor.execute(
        """
        select id, topic, key, value, headers from intake.outbox
        where sent_at is null and waiting_for is null and owner = %(owner)s and id <> all (%(except)s::bigint[])
          and not exists (
            select from intake.outbox older
            where older.topic = outbox.topic and older.key = outbox.key and older.id < outbox.id
              and older.sent_at is null and (older.owner <> %(owner)s or older.waiting_for is not null))
        order by id limit %(limit)s""",
        {"owner": owner, "except": list(except_ids), "limit": limit},
    )
    return [Queued(id_, _record(*stored)) for id_, *stored in cursor.fetchall()]


def release(cursor: Cursor, owner: int, *, limit: int) -> int:
    """Give folds whose dataset has been split the split they waited for; returns how many."""
    cursor.execute(
        """
        select outbox.id, outbox.value, r.split::text, r.split_error
        from intake.outbox
        join intake.dataset d on d.raw_data_id = outbox.waiting_for
        join rm.dataset r on r.raw_data_id = outbox.waiting_for and r.result_attempt >= d.split_attempt
        where outbox.sent_at is null and outbox.owner = %s
        order by outbox.id limit %s for update of outbox skip locked""",
        (owner, limit),
    )
    released = [(id_, _with_split(value, split, error)) for id_, value, split, error in cursor.fetchall()]
    if released:
        execute_values(
            cursor,
            """
            update intake.outbox set value = released.value, waiting_for = null
            from (values %s) as released (id, value) where outbox.id = released.id""",
            released,
            template="(%s::bigint, %s)",
            page_size=1000,
        )
    return len(released)


def any_waiting(cursor: Cursor, owner: int) -> bool:
    """Tell whether a fold of this owner waits for a split."""
    cursor.execute(
        """
        select exists (
            select from intake.outbox where sent_at is null and waiting_for is not null and owner = %s)""",
        (owner,),
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def prune(cursor: Cursor, *, limit: int) -> None:
    """Forget acknowledged rows after a while."""
    cursor.execute(
        """
        delete from intake.outbox where id in (
            select id from intake.outbox where sent_at < now() - make_interval(secs => %s)
            order by id limit %s for update skip locked)""",
        (KEPT_SECONDS, limit),
    )


def _row(entry: Entry) -> dict[str, object]:
    headers = _headers(entry.record)
    return {
        "ce_id": next(value for name, value in headers if name == "ce_id"),
        "topic": entry.record.topic,
        "key": entry.record.key.decode(),
        "value": entry.record.value.decode(),
        "headers": headers,
        "waiting_for": entry.waiting_for,
        "owner": entry.owner,
    }


def _headers(record: Record) -> list[list[str]]:
    return [[name, value.decode()] for name, value in record.headers]


def _record(topic: str, key: str, value: str, headers: list[list[str]]) -> Record:
    return Record(topic, key.encode(), value.encode(), tuple((name, text.encode()) for name, text in headers))


def _with_split(value: str, split: str | None, error: str | None) -> str:
    event = FoldRequested.model_validate_json(value)
    known = Split.model_validate_json(split) if split is not None else None
    dataset: Dataset = event.dataset.model_copy(update={"split": known, "split_error": error})
    return event.model_copy(update={"dataset": dataset}).model_dump_json(exclude_none=True)
