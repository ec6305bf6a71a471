"""Histories of folds, datasets and runners for the projection's tests: drawn, laid out as a log, read in any order."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from datarun.envelope import Context, encode
from datarun.events import (
    Blob,
    Cause,
    Dataset,
    DataSplit,
    DataUploaded,
    Event,
    Fault,
    FoldCancelled,
    FoldFailed,
    FoldHandedBack,
    FoldLost,
    FoldReproduced,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    Metrics,
    NamedBlob,
    PredictionsFetched,
    Priority,
    RunnerHeartbeat,
    RunningFold,
    Sandbox,
    Split,
    SplitFailed,
    SplitRequested,
    Stage,
    StandardSplit,
)
from datarun.log import StoredRecord, TopicPartition
from datarun.partitioner import partition_of as partition_of_key
from datarun.projection import columns
from datarun.projection.batch import Batch
from datarun.projection.evolve import Registers
from datarun.readmodel.tables import metadata
from datarun.topics import Catalogue

CATALOGUE = Catalogue("test.")
CONTEXT = Context("test", datetime(2026, 1, 1, tzinfo=UTC))
START_MS = 1_767_225_600_000
NEIGHBOURS = (1, 7, 8)
"""Folds whose events lie in one partition."""
SANDBOX = Sandbox(level=3, mechanisms=("rlimits",))


def blob(number: int) -> Blob:
    """Return a blob reference that no other number has."""
    return Blob(sha256=f"{number:064x}", size=number)


def dataset(number: int = 1) -> Dataset:
    """Return what a runner knows of a dataset."""
    return Dataset(
        raw_data_id=number,
        name=f"data {number}",
        target_column="y",
        workflow_elements="classifier",
        files=(NamedBlob(name="data.csv", blob=blob(1)),),
    )


def requested(fold_id: int, *, attempt: int = 1, delivery: int = 1, mark: int = 0, **fields: Any) -> FoldRequested:
    """Return a request; `mark` makes it unlike others of the same attempt and delivery."""
    defaults: dict[str, Any] = {
        "submission_id": fold_id % 3 + 1,
        "submission_version": mark % 3 + 1,
        "priority": Priority.HIGH if attempt % 2 else Priority.LOW,
        "dataset": dataset(),
        "files": (NamedBlob(name="classifier.py", blob=blob(2)),),
        "train_is": blob(mark + 3),
        "test_is": blob(mark + 4),
        "task_id": f"task {mark}",
        "requested_by": "somebody",
    }
    return FoldRequested(fold_id=fold_id, attempt=attempt, delivery=delivery, **(defaults | fields))


def run_event(kind: type[Event], fold_id: int, *, attempt: int = 1, delivery: int = 1, mark: int = 0) -> Event:
    """Return something that happened to a fold; `mark` makes it unlike others of the same place."""
    run: dict[str, Any] = {
        "fold_id": fold_id,
        "attempt": attempt,
        "delivery": delivery,
        "submission_id": fold_id % 3 + 1,
        "raw_data_id": 1,
        "runner_id": f"runner-{mark}",
    }
    metrics = Metrics(train_time=mark + 0.5, test_memory=mark + 0.25)
    if kind is FoldStarted:
        return FoldStarted(**run, lease_seconds=10)
    if kind is FoldTrained:
        return FoldTrained(
            **run, metrics=metrics, full_train_predictions=blob(mark), predictions_shape=(mark, 3), sandbox=SANDBOX
        )
    if kind is FoldTested:
        return FoldTested(
            **run,
            metrics=metrics,
            full_train_predictions=blob(mark),
            full_train_shape=(mark, 3),
            test_predictions=blob(mark + 1),
            test_shape=(mark + 1, 3),
            log=f"log {mark}",
            sandbox=SANDBOX,
        )
    if kind is FoldFailed:
        return FoldFailed(
            **run,
            stage=Stage.TRAIN,
            cause=Cause.USER_ERROR,
            fault=Fault.USER,
            message=f"it broke: {mark}\n\tat 1\\2 \x00",
        )
    if kind is FoldLost or kind is FoldHandedBack:
        return kind(**run)
    if kind is FoldReproduced:
        return FoldReproduced(**run, tested_by="runner-1", reproduced=mark % 2 == 0, sandbox=SANDBOX)
    raise TypeError(kind)


def cancelled(fold_id: int, *, attempt: int = 1, mark: int = 0) -> FoldCancelled:
    """Return a cancellation; `mark` makes it unlike others of the same attempt."""
    return FoldCancelled(
        fold_id=fold_id,
        attempt=attempt,
        submission_id=fold_id % 3 + 1,
        raw_data_id=1,
        cancelled_by=f"user {mark}",
        reason="a mistake" if mark % 2 else "",
    )


def partition_of(record: StoredRecord) -> TopicPartition:
    """Return where a record is, without its offset."""
    return TopicPartition(record.topic, record.partition)


def heartbeat(runner_id: str, sequence: int, *, running: tuple[RunningFold, ...] = ()) -> RunnerHeartbeat:
    """Return a heartbeat."""
    return RunnerHeartbeat(
        runner_id=runner_id,
        sequence=sequence,
        host="here",
        pid=1,
        queues=("H",),
        slots=1,
        running=running,
        versions={"python": "3.11"},
        sandbox=SANDBOX,
    )


@dataclass
class Log:
    """A log in memory with the partitions of a real one; the broker's clock ticks once a record."""

    records: dict[TopicPartition, list[StoredRecord]] = field(default_factory=lambda: defaultdict(list))
    length: int = 0

    def append(self, event: Event, *, value: bytes | None = None) -> StoredRecord:
        """Append an event to its topic, in the partition of its key; or another value in its stead."""
        record = encode(event, catalogue=CATALOGUE, context=CONTEXT)
        count = CATALOGUE.topic(record.topic).partitions
        tp = TopicPartition(record.topic, partition_of_key(record.key, count))
        stored = StoredRecord(
            tp.topic,
            tp.partition,
            len(self.records[tp]),
            record.key,
            record.value if value is None else value,
            record.headers,
            START_MS + self.length,
        )
        self.records[tp].append(stored)
        self.length += 1
        return stored

    def in_first_versions(self) -> Log:
        """Return the same log as it would be had version 1 written all of its split requests."""
        older = Log(length=self.length)
        for tp, records in self.records.items():
            older.records[tp] = [_in_first_version(record) for record in records]
        return older

    def reading(self, seed: int) -> list[list[StoredRecord]]:
        """Return batches a consumer may see: each partition in order, and some of it more than once."""
        chance = random.Random(seed)
        position = dict.fromkeys(self.records, 0)
        batches = []
        while unread := [tp for tp, records in self.records.items() if position[tp] < len(records)]:
            batch: list[StoredRecord] = []
            for tp in chance.sample(unread, chance.randint(1, len(unread))):
                end = position[tp] + chance.randint(1, 5)
                batch += self.records[tp][position[tp] : end]
                # A consumer that died before it acknowledged reads again.
                position[tp] = end if chance.random() < 0.7 else chance.randint(0, position[tp])
            batches.append(batch)
        return batches

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record, partition by partition."""
        return (record for records in self.records.values() for record in records)


def _in_first_version(record: StoredRecord) -> StoredRecord:
    try:
        said = json.loads(record.value or b"")
    except ValueError:
        return record
    if "plan" not in said:
        return record
    headers = [(name, b"datarun.SplitRequested.v1" if name == "ce_type" else value) for name, value in record.headers]
    return record._replace(value=json.dumps(said | said.pop("plan")).encode(), headers=tuple(headers))


_RUN_KINDS = (FoldStarted, FoldTrained, FoldTested, FoldFailed, FoldLost, FoldHandedBack, FoldReproduced)
_PLACES = st.tuples(st.sampled_from((1, 2, 7)), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))


def _fold_events(place: tuple[int, int, int, int], kind: int) -> Event:
    fold_id, attempt, delivery, mark = place
    if kind < len(_RUN_KINDS):
        return run_event(_RUN_KINDS[kind], fold_id, attempt=attempt, delivery=delivery, mark=mark)
    if kind == len(_RUN_KINDS) + 2:
        return cancelled(fold_id, attempt=attempt, mark=mark)
    if kind == len(_RUN_KINDS):
        return PredictionsFetched(fold_id=fold_id, attempt=attempt, fetch_id=str(mark), fetched_by="somebody")
    priority = Priority.HIGH if mark % 5 else Priority.LOW
    return requested(fold_id, attempt=attempt, delivery=delivery, mark=mark, priority=priority)


def _data_events(place: tuple[int, int, int, int], kind: int) -> Event:
    number, attempt, _, mark = place
    told = dataset(number)
    task: dict[str, Any] = {"raw_data_id": number, "attempt": attempt, "task_id": f"task {mark}"}
    if kind == 0:
        return DataUploaded(
            raw_data_id=number,
            name=f"{told.name} {mark}",
            target_column="y",
            workflow_elements="classifier",
            files=told.files,
            uploaded_by="somebody",
        )
    if kind == 1:
        return SplitRequested(
            **task, plan=StandardSplit(held_out_test=0.5, random_state=42), dataset=told, requested_by="somebody"
        )
    if kind == 2:
        split = Split(kind="standard", task_id=f"task {mark}", train=blob(mark), test=blob(mark + 1))
        return DataSplit(**task, split=split, runner_id="runner-1")
    return SplitFailed(
        **task, cause=Cause.USER_ERROR, fault=Fault.USER, log=f"no column {mark}\x00", runner_id="runner-1"
    )


def _runner_events(place: tuple[int, int, int, int], _: int) -> Event:
    number, attempt, delivery, mark = place
    running = (RunningFold(fold_id=number, attempt=attempt, delivery=delivery),)
    return heartbeat(f"runner-{number}", mark, running=running)


events = st.one_of(
    st.builds(_fold_events, _PLACES, st.integers(0, len(_RUN_KINDS) + 2)),
    st.builds(_data_events, _PLACES, st.integers(0, 3)),
    st.builds(_runner_events, _PLACES, st.just(0)),
)
"""Any event about three folds, datasets and runners: forced attempts, lost deliveries, double terminals, zombies."""


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Draw a log: more than can happen, so that nothing that happens is missing."""
    log = Log()
    for event in draw(st.lists(events, max_size=60)):
        stored = log.append(event)
        if draw(st.integers(0, 19)) == 0:
            log.append(event)
        if draw(st.integers(0, 39)) == 0:
            log.append(event, value=(stored.value or b"")[:-1])
    return log


def story(fold_id: int) -> list[Event]:
    """Return the life of one fold as it happens: some are lost, forced, failed or run twice, some fetched."""
    events: list[Event] = [requested(fold_id, mark=fold_id)]
    delivery = 1
    if fold_id % 7 == 0:
        lost = [run_event(kind, fold_id, mark=fold_id) for kind in (FoldStarted, FoldTrained, FoldLost)]
        events += [lost[0], lost[1], requested(fold_id, delivery=2, mark=fold_id), lost[2]]
        delivery = 2
    last = FoldFailed if fold_id % 5 == 0 else FoldTested
    events += [run_event(kind, fold_id, delivery=delivery, mark=fold_id) for kind in (FoldStarted, FoldTrained, last)]
    if fold_id % 11 == 0:
        events.append(run_event(FoldTested, fold_id, delivery=1, mark=fold_id + 1))
    if fold_id % 3 == 0:
        events.append(PredictionsFetched(fold_id=fold_id, attempt=1, fetch_id="fetch", fetched_by="somebody"))
    if fold_id % 13 == 0:
        events += [requested(fold_id, attempt=2, mark=fold_id), run_event(FoldStarted, fold_id, attempt=2)]
    return events


Tables = dict[str, dict[Any, dict[str, Any]]]


def tables(batch: Batch) -> Tables:
    """Return the read model that a batch comes to, when it is all there ever was."""
    kept = batch.registers
    found: Tables = {"fold": {}, "dataset": {}, "submission": {}, "runner": {}, "dead_letter": {}}
    for table, rows in _registers(kept):
        for row in rows:
            key = row[next(iter(row))]
            # Requests come last: of submission and dataset they know better than runs.
            found[table][key] = found[table].get(key, _blank(table)) | row
    for row in batch.dead:
        found["dead_letter"][row["topic"], row["partition"], row["offset"]] = row
    return {table: {key: _plain(row) for key, row in rows.items()} for table, rows in found.items()}


def _registers(kept: Registers) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    return (
        ("fold", [columns.fetch(one) for one in kept.fetches.values()]),
        ("fold", [columns.run(one) for one in kept.runs.values()]),
        ("fold", [columns.request(one) for one in kept.requests.values()]),
        ("submission", [columns.submission(one) for one in kept.submissions.values()]),
        ("dataset", [columns.upload(one) for one in kept.uploads.values()]),
        ("dataset", [columns.split_request(one) for one in kept.split_requests.values()]),
        ("dataset", [columns.split_result(one) for one in kept.split_results.values()]),
        ("runner", [columns.heartbeat(one) for one in kept.heartbeats.values()]),
    )


def _blank(table: str) -> dict[str, Any]:
    return {
        column.name: 0 if column.server_default is not None else None
        for column in metadata.tables[f"rm.{table}"].columns
    }


def _plain(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {name: _plain(content) for name, content in value.items()}
        case list() | tuple():
            return [_plain(content) for content in value]
        case _:
            return value
