"""`apply` on a real Postgres: the same rows as the pure fold, whatever is read how often, and nothing by halves."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from datarun.db import connect
from datarun.errors import DatarunError
from datarun.events import FoldFailed, FoldStarted, FoldTested
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.projection.apply import Applied, apply
from datarun.projection.batch import fold
from datarun.projection.offsets import Gap, read_offsets
from datarun.projection.share import Ground, project
from datarun.projection.statements import BLANK_FOLD
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.readmodel.tables import metadata
from tests.histories import CATALOGUE, NEIGHBOURS, Log, heartbeat, logs, partition_of, requested, run_event, tables
from tests.readmodel_dump import dump


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    """Open a connection to a database with an empty read model."""
    opened = connect(postgres_url)
    create_read_model(opened)
    opened.commit()
    yield opened
    opened.close()


def _apply(records: list[StoredRecord], connection: Connection) -> Applied:
    return apply(records, connection, catalogue=CATALOGUE)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs(), seed=st.integers(0, 2**32))
def test_any_reading_of_a_log_gives_the_same_tables(connection: Connection, log: Log, seed: int) -> None:
    """Interleaving, redelivery and the cutting of batches leave no trace in Postgres either."""
    drop_read_model(connection, schema="rm")
    create_read_model(connection)
    connection.commit()
    for records in log.reading(seed):
        _apply(records, connection)
    assert dump(connection) == tables(fold(log, catalogue=CATALOGUE))


class Recorded:
    """A log that was written before, read in chunks of any sizes."""

    def __init__(self, log: Log, seed: int) -> None:
        self._log = log
        self._chance = random.Random(seed)

    def read(self, start: Mapping[TopicPartition, int], **_: Any) -> Iterator[list[StoredRecord]]:
        """Yield what follows the given offsets, partition by partition in any order."""
        left = {tp: self._log.records[tp][offset:] for tp, offset in start.items()}
        while any(left.values()):
            tp = self._chance.choice([one for one, records in left.items() if records])
            count = self._chance.randint(1, 5)
            yield left[tp][:count]
            left[tp] = left[tp][count:]


def _load(log: Log, seed: int, connection: Connection) -> int:
    """Bring the whole log in as a rebuild does."""
    until = {tp: len(records) for tp, records in log.records.items()}
    ground = Ground(lambda: cast("EventLog", None), lambda: connection, CATALOGUE, "rm")
    return project(ground, cast("EventLog", Recorded(log, seed)), connection, dict.fromkeys(until, 0), until)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs(), seed=st.integers(0, 2**32), size=st.integers(1, 40))
def test_a_rebuild_gives_the_same_tables_however_it_is_cut(
    connection: Connection, log: Log, seed: int, size: int
) -> None:
    """Folds that come whole and folds that come in parts end as the same rows, and every offset at its end."""
    drop_read_model(connection, schema="rm")
    create_read_model(connection)
    connection.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datarun.projection.share.RECORDS_A_BATCH", size)
        assert _load(log, seed, connection) == log.length
    assert dump(connection) == tables(fold(log, catalogue=CATALOGUE))
    with connection, connection.cursor() as cursor:
        assert read_offsets(cursor, schema="rm") == {tp: len(records) for tp, records in log.records.items()}


def test_a_rebuild_buries_a_value_only_the_database_refuses(connection: Connection) -> None:
    """The stretch it lies in goes the slow way, record by record, and loses nothing else."""
    with connection, connection.cursor() as cursor:
        cursor.execute("alter table rm.fold alter column runner_id type varchar(8)")
    log = Log()
    for mark in (1, 1_000_000, 2):
        log.append(requested(mark))
        log.append(run_event(FoldTested, mark, mark=mark))
    assert _load(log, 1, connection) == log.length
    rows = dump(connection)
    assert sorted((number, row["run_rank"]) for number, row in rows["fold"].items()) == [(1, 9), (2, 9), (1_000_000, 0)]
    assert [row["reason"] for row in rows["dead_letter"].values()] == ["unstorable"]


def test_two_rebuilds_of_one_schema_do_not_mix(connection: Connection) -> None:
    """Who finds the offsets elsewhere than it left them stops, and has written nothing."""
    log = Log()
    record = log.append(requested(1))
    _apply([record], connection)
    with pytest.raises(Gap):
        _load(log, 1, connection)


def test_a_blank_fold_is_what_the_table_says() -> None:
    """A fold written whole has the same defaults as one written register by register."""
    never_null = [column.name for column in metadata.tables["rm.fold"].columns if column.server_default is not None]
    assert list(BLANK_FOLD) == never_null


def test_known_records_are_skipped_and_counted(connection: Connection) -> None:
    """A consumer that died before it acknowledged reads again."""
    log = Log()
    records = [log.append(run_event(FoldStarted, number)) for number in NEIGHBOURS]
    assert _apply(records[:2], connection) == Applied(2, 0, 0)
    assert _apply(records, connection) == Applied(1, 2, 0)


def test_a_gap_changes_nothing(connection: Connection) -> None:
    """The records before the gap are not applied either: the batch is one transaction."""
    log = Log()
    records = [log.append(run_event(FoldStarted, number)) for number in NEIGHBOURS]
    with pytest.raises(Gap):
        _apply([records[0], records[2]], connection)
    assert dump(connection)["fold"] == {}
    assert _apply(records, connection).count == 3


def test_offsets_move_with_the_rows(connection: Connection) -> None:
    """Who waits for its own write looks at the offset."""
    log = Log()
    record = log.append(requested(1))
    _apply([record], connection)
    with connection, connection.cursor() as cursor:
        assert read_offsets(cursor, schema="rm") == {partition_of(record): 1}


def test_text_that_postgres_cannot_store_is_replaced(connection: Connection) -> None:
    """A submission that prints NUL does not stop the projection, and two names that become equal are one runner."""
    log = Log()
    records = [log.append(heartbeat("a\x00", 1)), log.append(heartbeat("a\ufffd", 2))]
    records.append(log.append(run_event(FoldFailed, 1)))
    _apply(records, connection)
    rows = dump(connection)
    assert "\ufffd" in rows["fold"][1]["message"]
    assert [row["sequence"] for row in rows["runner"].values()] == [2]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (b'"delivery":1', b'"delivery":99999'),
        (b'"train_time":0.5', b'"train_time":1e999'),
        (b'"full_train_shape":[0,3]', b'"full_train_shape":[99999999999,3]'),
    ],
)
def test_numbers_no_column_holds_become_dead_letters(connection: Connection, spoil: bytes, reason: bytes) -> None:
    """Their schema refuses them, so the partition goes on."""
    log = Log()
    value = log.append(run_event(FoldTested, 1)).value or b""
    assert spoil in value
    spoiled = log.append(run_event(FoldTested, 1), value=value.replace(spoil, reason))
    after = log.append(run_event(FoldTested, 1, mark=1))
    assert _apply(list(log), connection) == Applied(3, 0, 1)
    [row] = dump(connection)["dead_letter"].values()
    assert (row["offset"], row["reason"]) == (spoiled.offset, "schema")
    assert after.offset == spoiled.offset + 1


def test_a_value_only_the_database_refuses_is_buried_alone(connection: Connection) -> None:
    """Should a schema be wider than its column, one record is lost to the dead letters, not a partition."""
    with connection, connection.cursor() as cursor:
        cursor.execute("alter table rm.fold alter column runner_id type varchar(8)")
    log = Log()
    for mark in (1, 1_000_000, 2):
        log.append(run_event(FoldTested, mark, mark=mark))
    assert _apply(list(log), connection) == Applied(3, 0, 1)
    rows = dump(connection)
    assert sorted(rows["fold"]) == [1, 2]
    assert [row["reason"] for row in rows["dead_letter"].values()] == ["unstorable"]


def test_a_topic_outside_the_catalogue_is_no_business_of_ours(connection: Connection) -> None:
    """Another installation's prefix is refused before anything is written."""
    log = Log()
    record = log.append(run_event(FoldStarted, 1))
    foreign = StoredRecord("other.fold-events", 0, 0, record.key, record.value, record.headers)
    with pytest.raises(DatarunError):
        _apply([foreign], connection)


_CRASHING = """
import pickle, sys
from datarun.db import connect
from datarun.projection.apply import apply
from tests.histories import CATALOGUE
apply(pickle.loads(sys.stdin.buffer.read()), connect(sys.argv[1]), catalogue=CATALOGUE)
"""


@pytest.mark.parametrize(("point", "rows"), [("projector.before_commit", 0), ("projector.after_commit", 2)])
def test_a_crash_at_either_side_of_the_commit_loses_and_doubles_nothing(
    connection: Connection, postgres_url: str, point: str, rows: int
) -> None:
    """Before it nothing is there, after it all is; the same batch again ends the same."""
    import os
    import pickle

    log = Log()
    records = [log.append(run_event(FoldTested, number)) for number in NEIGHBOURS[:2]]
    done = subprocess.run(
        [sys.executable, "-c", _CRASHING, postgres_url],
        input=pickle.dumps(records),
        env={**os.environ, "DATARUN_CRASH_AT": point, "PYTHONPATH": "."},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(dump(connection)["fold"]) == rows
    assert _apply(records, connection) == Applied(2 - rows, rows, 0)
    assert dump(connection) == tables(fold(log, catalogue=CATALOGUE))
