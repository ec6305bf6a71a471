"""Claims, as named statements: each reads what a decision needs or records it; the caller's transaction binds them.

Locks are advisory and taken in the order dataset, submission, fold, so that no two requests can block each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import Json
from pydantic import TypeAdapter

from datarun.events import Blob, Dataset, NamedBlob, Split
from datarun.intake.outbox import Entry, Queued, add

SPECIFIC = "specific.py"
UNKNOWN_DIGEST = ""
"""Of requests from before events named it, or from producers that are no gateway."""
PRODUCERS_NUMBERS = 1_000_000_000
"""From here on datasets are numbered by producers, below by the gateways."""
_TRIES = 10

_FILES = TypeAdapter(tuple[NamedBlob, ...])

DATASET_LOCK, SUBMISSION_LOCK, FOLD_LOCK = 1_885_001, 1_885_002, 1_885_003


@dataclass(frozen=True)
class DatasetClaim:
    """A dataset as the write side knows it, with what the read model says of its split."""

    raw_data_id: int
    name: str
    target_column: str
    workflow_elements: str
    files: tuple[NamedBlob, ...]
    rows: int | None
    split_attempt: int
    split_request: dict[str, Any] | None
    split_task_id: str | None
    result_attempt: int
    split: Split | None
    split_error: str | None
    uploaded_by: str | None = None

    @property
    def is_custom(self) -> bool:
        """Tell whether the organiser's specific.py reads and splits the data."""
        return any(file.name == SPECIFIC for file in self.files)

    @property
    def waits_for_split(self) -> bool:
        """Tell whether a split was asked for whose result is not known here yet."""
        return self.split_attempt > self.result_attempt

    @property
    def known_train_rows(self) -> int | None:
        """How many rows its train part has; None while its split is not known."""
        return self.split.train_rows if self.split is not None and not self.waits_for_split else None

    @cached_property
    def manifest(self) -> Dataset:
        """What a runner must know of the dataset, with the split if it is known."""
        known = not self.waits_for_split
        return Dataset(
            raw_data_id=self.raw_data_id,
            name=self.name,
            target_column=self.target_column,
            workflow_elements=self.workflow_elements,
            files=self.files,
            split=self.split if known else None,
            split_error=self.split_error if known else None,
        )


@dataclass(frozen=True, slots=True)
class SubmissionClaim:
    """A submission's newest version."""

    submission_id: int
    raw_data_id: int
    version: int
    files: tuple[NamedBlob, ...]
    files_digest: str
    submitted_by: str | None = None
    """Who sent its first version."""


@dataclass(frozen=True, slots=True)
class FoldClaim:
    """A fold's newest accepted attempt."""

    fold_id: int
    attempt: int
    submission_id: int
    submission_version: int
    submitted_by: str | None = None
    """Whose submission it is a fold of."""


@dataclass(frozen=True, slots=True)
class FoldContext:
    """All that the decision about a fold rests on."""

    dataset: DatasetClaim | None
    submission: SubmissionClaim | None
    fold: FoldClaim | None
    at: datetime
    """When it was read, by the database's clock; a claim made of it under its locks is accepted then."""


_DATASET_COLUMNS = """
    d.raw_data_id, d.name, d.target_column, d.workflow_elements, d.files::text, d.rows, d.split_attempt,
    d.split_request, d.split_task_id, coalesce(r.result_attempt, 0), r.split::text, r.split_error, d.uploaded_by"""
_DATASET_FIELDS = [field.name for field in fields(DatasetClaim)]

FOLD_CONTEXT = f"""{_DATASET_COLUMNS},
    s.submission_id, s.raw_data_id, s.version, s.files::text, s.files_digest, s.submitted_by,
    f.fold_id, f.attempt, f.submission_id, f.submission_version, fs.submitted_by, clock_timestamp()
from asked
left join intake.submission s on s.submission_id = asked.submission_id
left join intake.dataset d on d.raw_data_id = coalesce(s.raw_data_id, asked.raw_data_id)
left join rm.dataset r on r.raw_data_id = d.raw_data_id
left join intake.fold f on f.fold_id = asked.fold_id
left join intake.submission fs on fs.submission_id = f.submission_id"""
"""What to select for `contexts`, of a table `asked`."""

_FOLD_CONTEXT = f"""
with asked (fold_id, submission_id, raw_data_id) as (
    values (%(fold_id)s::integer, %(submission_id)s::integer, %(raw_data_id)s::integer))
select {FOLD_CONTEXT}"""

_NEW_DATASET = """
insert into intake.dataset (raw_data_id, name, target_column, workflow_elements, files, rows, uploaded_by)
select nextval('intake.dataset_id'), %(name)s, %(target)s, %(elements)s, %(files)s, %(rows)s, %(by)s
where not exists (select 1 from intake.dataset where name = %(name)s)
on conflict do nothing
returning raw_data_id, accepted_at"""
_NEXT_FREE_NUMBER = """
select setval('intake.dataset_id', (
    select min(taken.raw_data_id) from intake.dataset taken
    where taken.raw_data_id >= ids.last_value and not exists (
        select from intake.dataset following where following.raw_data_id = taken.raw_data_id::bigint + 1)))
from intake.dataset_id ids"""

_DATASET = f"""
select {_DATASET_COLUMNS}
from intake.dataset d left join rm.dataset r on r.raw_data_id = d.raw_data_id
where d.raw_data_id = %s"""  # noqa: S608 - constants


def dataset_name_taken(cursor: Cursor, name: str) -> bool:
    """Tell whether a dataset has this name."""
    cursor.execute("select 1 from intake.dataset where name = %s", (name,))
    return cursor.fetchone() is not None


def claim_dataset(
    cursor: Cursor, manifest: Dataset, *, rows: int | None, uploaded_by: str
) -> tuple[int, datetime] | None:
    """Claim a name and return the new id and when, or None if somebody has the name; `raw_data_id` is not read."""
    told = {
        "name": manifest.name,
        "target": manifest.target_column,
        "elements": manifest.workflow_elements,
        "files": _files_json(manifest.files),
        "rows": rows,
        "by": uploaded_by,
    }
    for _ in range(_TRIES):
        cursor.execute(_NEW_DATASET, told)
        row = cursor.fetchone()
        if row:
            return int(row[0]), row[1]
        if dataset_name_taken(cursor, manifest.name):
            return None
        # A producer has taken the next number.
        cursor.execute(_NEXT_FREE_NUMBER)
    raise RuntimeError("no number is free for a dataset")


def read_dataset(cursor: Cursor, raw_data_id: int) -> DatasetClaim | None:
    """Return a dataset, or None."""
    cursor.execute(_DATASET, (raw_data_id,))
    row = cursor.fetchone()
    return _dataset(row) if row else None


def lock_dataset(cursor: Cursor, raw_data_id: int) -> None:
    """Keep every other split and every fold of the dataset out until the transaction ends."""
    cursor.execute("select pg_advisory_xact_lock(%s, %s)", (DATASET_LOCK, raw_data_id))


def count_folds(cursor: Cursor, raw_data_id: int) -> int:
    """Return how many folds of a dataset were accepted."""
    cursor.execute("select count(*) from intake.fold where raw_data_id = %s", (raw_data_id,))
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def record_split(
    cursor: Cursor, raw_data_id: int, *, attempt: int, request: dict[str, Any], task_id: str, entry: Entry
) -> Queued:
    """Record the split asked for, and its event."""
    cursor.execute(
        """
        update intake.dataset set split_attempt = %s, split_request = %s, split_task_id = %s, split_by_producer = false
        where raw_data_id = %s""",
        (attempt, Json(request), task_id, raw_data_id),
    )
    return add(cursor, [entry])[0]


def read_fold_context(cursor: Cursor, *, fold_id: int, submission_id: int, raw_data_id: int | None) -> FoldContext:
    """Return what is known of a fold, its submission and its dataset."""
    asked = {"fold_id": fold_id, "submission_id": submission_id, "raw_data_id": raw_data_id}
    cursor.execute(_FOLD_CONTEXT, asked)
    return next(contexts(cursor.fetchall()))


def lock_fold_context(
    cursor: Cursor, *, fold_id: int, submission_id: int, raw_data_id: int | None, may_write_submission: bool
) -> FoldContext:
    """Return the same, unchangeable until the transaction ends."""
    asked = {"fold_id": fold_id, "submission_id": submission_id, "raw_data_id": raw_data_id}
    shared = "" if may_write_submission else "_shared"
    # Statements in one round trip: the last one sees what was committed while the others waited.
    cursor.execute(
        f"""
        select pg_advisory_xact_lock_shared({DATASET_LOCK}, coalesce(
            (select raw_data_id from intake.submission where submission_id = %(submission_id)s),
            %(raw_data_id)s, 0));
        select pg_advisory_xact_lock{shared}({SUBMISSION_LOCK}, %(submission_id)s);
        select pg_advisory_xact_lock({FOLD_LOCK}, %(fold_id)s);
        {_FOLD_CONTEXT}""",  # noqa: S608 - constants
        asked,
    )
    return next(contexts(cursor.fetchall()))


def lock_fold(cursor: Cursor, fold_id: int) -> None:
    """Keep every other decision about the fold out until the transaction ends."""
    cursor.execute("select pg_advisory_xact_lock(%s, %s)", (FOLD_LOCK, fold_id))


def record_submission(cursor: Cursor, submission: SubmissionClaim, *, at: datetime) -> None:
    """Record a submission's new version, accepted with a fold; whose it is only its first one says."""
    cursor.execute(
        """
        insert into intake.submission
            (submission_id, raw_data_id, version, files, files_digest, submitted_by, accepted_at)
        values (%s, %s, %s, %s, %s, %s, %s)
        on conflict (submission_id) do update set
            version = excluded.version, files = excluded.files, files_digest = excluded.files_digest,
            accepted_at = excluded.accepted_at, by_producer = excluded.by_producer""",
        (
            submission.submission_id,
            submission.raw_data_id,
            submission.version,
            _files_json(submission.files),
            submission.files_digest,
            submission.submitted_by,
            at,
        ),
    )


def contexts(rows: Iterable[tuple[Any, ...]]) -> Iterator[FoldContext]:
    """Yield what the rows of one FOLD_CONTEXT say; many of them are of few datasets."""
    datasets: dict[int | None, DatasetClaim | None] = {None: None}
    for row in rows:
        dataset, rest = row[: len(_DATASET_FIELDS)], row[len(_DATASET_FIELDS) :]
        if dataset[0] not in datasets:
            datasets[dataset[0]] = _dataset(dataset)
        submission_id, raw_data_id, version, files, digest, owner, *fold, at = rest
        yield FoldContext(
            dataset=datasets[dataset[0]],
            submission=None
            if submission_id is None
            else SubmissionClaim(submission_id, raw_data_id, version, _files(files), digest, owner),
            fold=None if fold[0] is None else FoldClaim(*fold),
            at=at,
        )


def blob_name(blob: Blob) -> str:
    """Return the `sha256:size` by which tables name a blob."""
    return f"{blob.sha256}:{blob.size}"


def files_digest(files: Iterable[NamedBlob]) -> str:
    """Return a digest of names and contents, whatever their order."""
    lines = sorted(f"{file.blob.sha256} {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files_json(files: Iterable[NamedBlob]) -> Json:
    return Json([file.model_dump(mode="json") for file in files])


# Folds that come together are mostly of one dataset and a few submissions.
@lru_cache(maxsize=64)
def _files(text: str) -> tuple[NamedBlob, ...]:
    return _FILES.validate_json(text)


@lru_cache(maxsize=64)
def _split(text: str) -> Split:
    return Split.model_validate_json(text)


def _dataset(row: tuple[Any, ...]) -> DatasetClaim:
    values = dict(zip(_DATASET_FIELDS, row, strict=True))
    values["files"] = _files(values["files"])
    if values["split"] is not None:
        values["split"] = _split(values["split"])
    return DatasetClaim(**values)
