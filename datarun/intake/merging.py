"""The log's claims brought into the tables, as named statements: what is known, or less than what is known, stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from psycopg2.extensions import cursor as Cursor

from datarun.intake.claims import DATASET_LOCK, FOLD_LOCK, PRODUCERS_NUMBERS, SUBMISSION_LOCK
from datarun.intake.history import History, Owner, Row
from datarun.projection.text import json_text


def _newer(by: str, told: str) -> str:
    # A gateway's claim gives way to nothing of its own number; see `history`.
    order = "by_producer", "accepted_at", *(["priority"] if by == "attempt" else [])
    left, right = (", ".join(f"{row}.{name}" for name in order) for row in (told, "kept"))
    return f"{told}.{by} > kept.{by} or {told}.{by} = kept.{by} and kept.by_producer and ({left}) < ({right})"


_NEWER_SPLIT = """
(told.split_attempt > kept.split_attempt
 or told.split_attempt = kept.split_attempt and kept.split_by_producer and not told.split_by_producer)"""
_DATASETS = """
insert into intake.dataset
    (raw_data_id, name, target_column, workflow_elements, files, rows, uploaded_by, accepted_at, by_producer)
select raw_data_id, name, target_column, workflow_elements, files, rows, uploaded_by, accepted_at, by_producer
from json_populate_recordset(null::intake.dataset, %s::json)
order by by_producer, accepted_at, raw_data_id
on conflict do nothing
"""
_SPLITS = f"""
update intake.dataset as kept set
    split_attempt = told.split_attempt, split_request = told.split_request, split_task_id = told.split_task_id,
    split_by_producer = told.split_by_producer
from json_populate_recordset(null::intake.dataset, %s::json) as told
where kept.raw_data_id = told.raw_data_id and {_NEWER_SPLIT}
"""  # noqa: S608 - constants
# Folds of one version come from both queues; the first of them was accepted with it.
_EARLIER = """
excluded.accepted_at < kept.accepted_at and not (kept.by_producer or excluded.by_producer)
and (excluded.version, excluded.files_digest, excluded.raw_data_id)
    = (kept.version, kept.files_digest, kept.raw_data_id)"""
_SUBMISSIONS = f"""
insert into intake.submission as kept select * from json_populate_recordset(null::intake.submission, %s::json)
on conflict (submission_id) do update set
    raw_data_id = excluded.raw_data_id, version = excluded.version, files = excluded.files,
    files_digest = excluded.files_digest, accepted_at = excluded.accepted_at, by_producer = excluded.by_producer
where {_newer("version", "excluded")} or {_EARLIER}
"""  # noqa: S608 - constants
_FOLDS = f"""
insert into intake.fold as kept select * from json_populate_recordset(null::intake.fold, %s::json)
on conflict (fold_id) do update set
    attempt = excluded.attempt, submission_id = excluded.submission_id,
    submission_version = excluded.submission_version, raw_data_id = excluded.raw_data_id,
    priority = excluded.priority, train_is = excluded.train_is, test_is = excluded.test_is,
    task_id = excluded.task_id, request_digest = excluded.request_digest,
    requested_by = excluded.requested_by, accepted_at = excluded.accepted_at, by_producer = excluded.by_producer
where {_newer("attempt", "excluded")}
"""  # noqa: S608 - constants
_CANCELLATIONS = """
insert into intake.cancellation select * from json_populate_recordset(null::intake.cancellation, %s::json)
on conflict do nothing
"""
_OWNERS = """
update intake.submission as kept set submitted_by = told.submitted_by
from json_populate_recordset(null::intake.submission, %s::json) as told
where kept.submission_id = told.submission_id and kept.submitted_by is null
"""
_IDS = """
select setval('intake.dataset_id', highest)
from (select max(raw_data_id) as highest from intake.dataset where raw_data_id < %s) as told
where highest >= (select last_value from intake.dataset_id)
"""
_NEWS = {
    "datasets": ("dataset", "raw_data_id", "false"),
    "splits": ("dataset", "raw_data_id", _NEWER_SPLIT),
    "submissions": ("submission", "submission_id", _newer("version", "told")),
    "folds": ("fold", "fold_id", _newer("attempt", "told")),
}
_LOCK = "select pg_advisory_xact_lock(%s, id) from unnest(%s::integer[]) as ids (id)"


def merge(cursor: Cursor, history: History) -> None:
    """Bring claims in; whose submissions are and which number is next is told apart, when more is known."""
    parts: list[tuple[str, list[Row]]] = [
        (_DATASETS, list(history.datasets.values())),
        (_SPLITS, list(history.splits.values())),
        (_SUBMISSIONS, list(history.submissions.values())),
        (_FOLDS, list(history.folds.values())),
        (_CANCELLATIONS, list(history.cancellations.values())),
    ]
    for statement, rows in parts:
        if rows:
            cursor.execute(statement, (json_text(rows),))


def merge_owners(cursor: Cursor, history: History) -> None:
    """Say whose submissions are, of those where it is not known."""
    least: dict[int, Owner] = {}
    for (submission_id, _), owner in history.owners.items():
        least[submission_id] = min(owner, least.get(submission_id, owner))
    rows = [{"submission_id": id_, "submitted_by": owner.name} for id_, owner in least.items()]
    if rows:
        cursor.execute(_OWNERS, (json_text(rows),))


def merge_numbers(cursor: Cursor) -> None:
    """Let gateways number datasets after the known ones."""
    cursor.execute(_IDS, (PRODUCERS_NUMBERS,))


def merge_beside_gateways(cursor: Cursor, history: History) -> None:
    """Bring in what is new, while gateways decide: under their locks, taken in their order, and none for the rest."""
    fresh = _news(cursor, history)
    if not (fresh.datasets or fresh.splits or fresh.submissions or fresh.folds):
        return
    datasets = {*fresh.datasets, *fresh.splits, *(row["raw_data_id"] for row in fresh.folds.values())}
    for kind, ids in ((DATASET_LOCK, datasets), (SUBMISSION_LOCK, fresh.submissions), (FOLD_LOCK, fresh.folds)):
        cursor.execute(_LOCK, (kind, sorted(ids)))
    merge(cursor, fresh)
    merge_owners(cursor, fresh)
    if fresh.datasets:
        merge_numbers(cursor)


def _news(cursor: Cursor, history: History) -> History:
    """Return the claims that may change something."""
    kept: dict[str, Any] = {}
    for name, (table, key, newer) in _NEWS.items():
        rows: Mapping[int, Row] = getattr(history, name)
        found = _changing(cursor, rows.values(), table=table, key=key, newer=newer)
        kept[name] = {id_: rows[id_] for id_ in rows if id_ in found}
    owners = {which: owner for which, owner in history.owners.items() if which[0] in kept["submissions"]}
    return replace(history, **kept, owners=owners, cancellations={})


def _changing(cursor: Cursor, rows: Iterable[Row], *, table: str, key: str, newer: str) -> set[int]:
    told = list(rows)
    if not told:
        return set()
    cursor.execute(
        f"""
        select told.{key} from json_populate_recordset(null::intake.{table}, %s::json) as told
        left join intake.{table} as kept using ({key})
        where kept.{key} is null or {newer}""",  # noqa: S608 - constants
        (json_text(told),),
    )
    return {id_ for (id_,) in cursor.fetchall()}
