"""Every SELECT on the read model, as named functions over a cursor.

A fold that was accepted is found before it is projected: what the write side claimed and what the read model knows are
joined, and the higher attempt speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import State, is_terminal, state_of
from datarun.log import TopicPartition


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """A dataset as clients see it."""

    raw_data_id: int
    name: str
    target_column: str
    workflow_elements: str


@dataclass(frozen=True, slots=True)
class KnownFold:
    """The newest attempt of a fold, as it was asked for, and the newest run that was seen of it.

    Blobs are named by `sha256:size`; times are seconds, memory MiB.
    """

    fold_id: int
    attempt: int
    submission_id: int
    submission_version: int
    raw_data_id: int
    priority: str
    train_is: str
    test_is: str
    task_id: str
    run_attempt: int = 0
    run_rank: int = 0
    cause: str | None = None
    message: str | None = None
    full_train_predictions: str | None = None
    test_predictions: str | None = None
    train_time: float = 0.0
    train_cpu_time: float = 0.0
    train_memory: float = 0.0
    validation_time: float = 0.0
    test_time: float = 0.0
    test_cpu_time: float = 0.0
    test_memory: float = 0.0
    fetched: bool = False
    replaced: bool = False
    """Whether the submission has a newer version, which this fold is not a part of."""
    owner: str | None = None
    """Who sent the submission first; it stays theirs, whoever runs it again."""

    @property
    def state(self) -> State:
        """Where the newest attempt stands."""
        return state_of(request_attempt=self.attempt, run_attempt=self.run_attempt, run_rank=self.run_rank)

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more can happen in the newest attempt."""
        return self.run_attempt >= self.attempt and is_terminal(self.run_rank)


_REQUEST_COLUMNS = ("submission_id", "submission_version", "raw_data_id", "priority", "train_is", "test_is", "task_id")
_RUN_COLUMNS = (
    "run_attempt", "run_rank", "cause", "message", "full_train_predictions", "test_predictions", "train_time",
    "train_cpu_time", "train_memory", "validation_time", "test_time", "test_cpu_time", "test_memory",
)  # fmt: skip
_ZEROS = {"run_attempt", "run_rank", *(column for column in _RUN_COLUMNS if column.endswith(("_time", "_memory")))}

_CLAIM_IS_NEWER = "coalesce(c.attempt, 0) > coalesce(f.request_attempt, 0)"
# Of one attempt a producer may have written another request, which lost: what was claimed stands.
_CLAIM_STANDS = "coalesce(c.attempt, 0) >= coalesce(f.request_attempt, 0)"
_ASKED = {name: f"case when {_CLAIM_STANDS} then c.{name} else f.{name} end" for name in _REQUEST_COLUMNS}
_RUN = {name: f"coalesce(f.{name}, 0)" if name in _ZEROS else f"f.{name}" for name in _RUN_COLUMNS}
_ATTEMPT = "greatest(c.attempt, f.request_attempt)"
_FETCHED = f"""
    (%(only)s is null and coalesce(f.fetched_attempt, 0) >= {_ATTEMPT} or exists (
        select from intake.fetch_claim taken
        where taken.fold_id = asked.fold_id and taken.attempt = {_ATTEMPT} and taken.view = coalesce(%(only)s, '')
          and taken.claimed_until > now()))"""
# A submission's new version replaces it with all its folds.
_REPLACED = f"{_ASKED['submission_version']} < greatest(seen.version, claimed.version, 0)"
_COLUMNS = ", ".join(
    [
        "asked.fold_id",
        _ATTEMPT,
        *(f"{_ASKED[name]} as {name}" for name in _REQUEST_COLUMNS),
        *_RUN.values(),
        _FETCHED,
        f"coalesce({_REPLACED}, false)",
        f"coalesce(claimed.submitted_by, case when {_CLAIM_STANDS} then c.requested_by else f.requested_by end)",
    ]
)
_JOINED = f"""
    left join rm.fold f on f.fold_id = asked.fold_id
    left join intake.fold c on c.fold_id = asked.fold_id
    left join rm.submission seen on seen.submission_id = {_ASKED["submission_id"]}
    left join intake.submission claimed on claimed.submission_id = {_ASKED["submission_id"]}"""
_BY_IDS = f"""
    select {_COLUMNS} from (select distinct unnest(%(ids)s::integer[]) as fold_id) asked {_JOINED}
    where {_ATTEMPT} > 0
    order by asked.fold_id"""  # noqa: S608 - constants
_PAGE = f"""
    select {_COLUMNS} from (
        (select fold_id from rm.fold where fold_id > %(after)s and request_attempt > 0 order by fold_id limit %(limit)s)
        union
        (select fold_id from intake.fold where fold_id > %(after)s order by fold_id limit %(limit)s)
        order by fold_id limit %(limit)s) asked {_JOINED}
    order by asked.fold_id"""  # noqa: S608 - constants
# The conditions on f in the first subquery are those of the partial index fold_new, to the letter.
_NEW_TO_ALL = "fetched_attempt < run_attempt"
# What others fetched is new to a participant all the same.
_NEW_TO_ONE = "submission_id in (select submission_id from intake.submission where submitted_by = %(only)s)"


def _new(condition: str) -> str:
    return f"""
    select {_COLUMNS} from (
        select fold_id from rm.fold
        where run_rank = 9 and run_attempt = request_attempt and {condition}
          and (%(raw_data_id)s::integer is null or raw_data_id = %(raw_data_id)s)) asked {_JOINED}
    where coalesce(c.attempt, 0) <= f.run_attempt and not coalesce({_REPLACED}, false)
      and not exists (
        select from intake.fetch_claim taken
        where taken.fold_id = asked.fold_id and taken.attempt = f.run_attempt and taken.view = coalesce(%(only)s, '')
          and taken.claimed_until > now())
    order by asked.fold_id limit %(limit)s"""  # noqa: S608 - constants


# The first condition is that of the partial index fold_open, to the letter; of the others the write side knows first.
_OPEN = """
    select request_offset from rm.fold f
    where (request_attempt > run_attempt
           or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery))
      and priority = %(queue)s and request_offset >= %(start)s and request_offset < %(end)s
      and not exists (
        select from intake.cancellation c where c.fold_id = f.fold_id and c.attempt >= f.request_attempt)
      and not exists (select from intake.fold c where c.fold_id = f.fold_id and c.attempt > f.request_attempt)
    order by request_offset"""


@dataclass(frozen=True, slots=True)
class FoldPage:
    """Some folds by id, and the id to go on after, None at the end."""

    folds: list[KnownFold]
    after: int | None


def all_datasets(cursor: Cursor) -> list[KnownDataset]:
    """Return every dataset, projected or only accepted yet, by id."""
    cursor.execute("""
        select raw_data_id, coalesce(d.name, c.name), coalesce(d.target_column, c.target_column),
            coalesce(d.workflow_elements, c.workflow_elements)
        from rm.dataset d full join intake.dataset c using (raw_data_id)
        where coalesce(d.name, c.name) is not null
        order by raw_data_id""")
    return [KnownDataset(*row) for row in cursor.fetchall()]


def fold_page(cursor: Cursor, *, after: int, limit: int, only: str | None = None) -> FoldPage:
    """Return the folds that follow an id, by id, replaced ones included; if `only` is given, those it owns of them."""
    cursor.execute(_PAGE, {"after": after, "limit": limit, "only": only})
    folds = [KnownFold(*row) for row in cursor.fetchall()]
    return FoldPage(_of(only, folds), folds[-1].fold_id if len(folds) == limit else None)


def folds_by_ids(cursor: Cursor, ids: Sequence[int], *, only: str | None = None) -> list[KnownFold]:
    """Return the folds with these ids, by id, each once, replaced ones included.

    Unknown ids are left out, and if `only` is given, folds it does not own.
    """
    cursor.execute(_BY_IDS, {"ids": list(ids), "only": only})
    return _of(only, [KnownFold(*row) for row in cursor.fetchall()])


def new_folds(cursor: Cursor, *, raw_data_id: int | None, limit: int, only: str | None = None) -> list[KnownFold]:
    """Return tested folds whose predictions nobody fetched or is fetching, of one dataset or all, by id.

    If `only` is given, those it owns and did not fetch itself.
    """
    condition = _NEW_TO_ALL if only is None else _NEW_TO_ONE
    cursor.execute(_new(condition), {"raw_data_id": raw_data_id, "limit": limit, "only": only})
    return [KnownFold(*row) for row in cursor.fetchall()]


def _of(only: str | None, folds: list[KnownFold]) -> list[KnownFold]:
    return [fold for fold in folds if only in (None, fold.owner)]


def open_requests(cursor: Cursor, queue: str, *, start: int, end: int) -> list[int]:
    """Return, of a queue's offsets from `start` up to `end`, those whose request nobody has begun, in their order.

    Begun are deliveries that a runner started, whatever came of them; what was cancelled, has ended or was requested
    anew since is not open either.
    """
    cursor.execute(_OPEN, {"queue": queue, "start": start, "end": end})
    return [offset for (offset,) in cursor.fetchall()]


def projected_offsets(cursor: Cursor) -> dict[TopicPartition, int]:
    """Return, per partition, the offset up to which (exclusively) the read model has seen the log."""
    cursor.execute("select topic, partition, next_offset from rm.projection_offset")
    return {TopicPartition(topic, partition): offset for topic, partition, offset in cursor.fetchall()}
