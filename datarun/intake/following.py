"""The log read on for claims that did not come by a gateway; what is read twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from psycopg2 import DataError
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.events import DataUploaded, FoldRequested, SplitRequested
from datarun.intake.claims import files_digest
from datarun.intake.history import read_history
from datarun.intake.merging import merge_beside_gateways
from datarun.log import StoredRecord, TopicPartition
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue

FOLLOWED = (DATA_EVENTS, DATA_REQUESTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)
"""Where producers write."""
TOGETHER = 500
"""Records a transaction, and so locks at the most."""
CLAIMED, UNKNOWN, UNSTORABLE = "claimed", "unknown_dataset", "unstorable"
"""Why a record claims nothing."""

Offsets = dict[TopicPartition, int]

_EMPTY = """
select not exists (select from intake.claim_offset) and not exists (select from intake.dataset)
   and not exists (select from intake.fold) and not exists (select from intake.outbox)
"""


class Loser(NamedTuple):
    """A producer's record that claims what is somebody else's, and whose."""

    record: StoredRecord
    reason: str
    detail: str


Why = tuple[str, str]
Explain = Callable[[Sequence[Loser]], None]


def is_empty(cursor: Cursor) -> bool:
    """Tell whether nothing was ever claimed here and no log was ever looked at, not even an empty one."""
    cursor.execute(_EMPTY)
    return cursor.fetchone() == (True,)


def read_offsets(cursor: Cursor, *, catalogue: Catalogue) -> Offsets:
    """Return the next offset to read of every partition."""
    cursor.execute("select topic, partition, next_offset from intake.claim_offset")
    known = {TopicPartition(topic, partition): offset for topic, partition, offset in cursor.fetchall()}
    partitions = [TopicPartition(catalogue.full_name(one), n) for one in FOLLOWED for n in range(one.partitions)]
    return {tp: known.get(tp, 0) for tp in partitions}


def move_offsets(cursor: Cursor, offsets: Offsets) -> None:
    """Move on; nobody moves back."""
    cursor.executemany(
        """
        insert into intake.claim_offset as kept (topic, partition, next_offset) values (%s, %s, %s)
        on conflict (topic, partition) do update set next_offset = excluded.next_offset
        where excluded.next_offset > kept.next_offset""",
        [(*tp, offset) for tp, offset in sorted(offsets.items())],
    )


def follow(records: Sequence[StoredRecord], connection: Connection, *, catalogue: Catalogue, explain: Explain) -> None:
    """Bring the claims of records, each partition's in order, beside those of gateways, and commit.

    Losers are explained before their offsets are recorded, so after a kill perhaps twice. Raises psycopg2's
    OperationalError, and what `explain` raises: the same call may then be made again.
    """
    for first in range(0, len(records), TOGETHER):
        some = records[first : first + TOGETHER]
        if losers := _claim(some, connection, catalogue=catalogue):
            explain(losers)
        with connection, connection.cursor() as cursor:
            move_offsets(cursor, {TopicPartition(one.topic, one.partition): one.offset + 1 for one in some})


def _claim(records: Sequence[StoredRecord], connection: Connection, *, catalogue: Catalogue) -> list[Loser]:
    history = read_history(records, catalogue=catalogue)
    try:
        with connection, connection.cursor() as cursor:
            merge_beside_gateways(cursor, history)
            return [
                Loser(one.record, *why) for one in history.told if (why := _TAKERS[type(one.event)](cursor, one.event))
            ]
    except DataError as error:
        # A value passed its schema and does not fit its column: of these records nothing is stored yet.
        if len(records) == 1:
            return [Loser(records[0], UNSTORABLE, str(error))]
    return [loser for record in records for loser in _claim([record], connection, catalogue=catalogue)]


def _upload(cursor: Cursor, event: DataUploaded) -> Why | None:
    cursor.execute("select name, files from intake.dataset where raw_data_id = %s", (event.raw_data_id,))
    row = cursor.fetchone()
    if row is None:
        return CLAIMED, f"another dataset has the name {event.name!r}"
    told = [file.model_dump(mode="json") for file in event.files]
    return None if row == (event.name, told) else (CLAIMED, f"dataset {event.raw_data_id} is another one: {row[0]!r}")


def _split(cursor: Cursor, event: SplitRequested) -> Why | None:
    cursor.execute(
        "select split_attempt, split_task_id from intake.dataset where raw_data_id = %s", (event.raw_data_id,)
    )
    row = cursor.fetchone()
    if row is None:
        return UNKNOWN, f"nobody has uploaded dataset {event.raw_data_id}"
    if row[0] == event.attempt and row[1] != event.task_id:
        return CLAIMED, f"split {event.attempt} of dataset {event.raw_data_id} is that of another request"
    return None


def _fold(cursor: Cursor, event: FoldRequested) -> Why | None:
    cursor.execute(
        "select task_id, requested_by from intake.fold where fold_id = %s and attempt = %s",
        (event.fold_id, event.attempt),
    )
    fold = cursor.fetchone()
    if fold is not None and fold[0] != event.task_id:
        return CLAIMED, f"attempt {event.attempt} of fold {event.fold_id} is that of another request, by {fold[1]!r}"
    cursor.execute(
        "select files_digest, raw_data_id from intake.submission where submission_id = %s and version = %s",
        (event.submission_id, event.submission_version),
    )
    told = (files_digest(event.files), event.dataset.raw_data_id)
    if cursor.fetchone() in (None, told):
        return None
    version = f"version {event.submission_version} of submission {event.submission_id}"
    return CLAIMED, f"{version} has other files or another dataset"


_TAKERS: dict[type[Any], Callable[[Cursor, Any], Why | None]] = {
    DataUploaded: _upload,
    SplitRequested: _split,
    FoldRequested: _fold,
}
