"""Folds with all that is known of them, in pages: every SELECT on them that /v1 makes, over a cursor.

What the write side claimed and the read model does not know yet is found as well; the higher attempt speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import Rank, State, is_terminal, state_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which folds to list; None leaves a column open."""

    state: str | None = None
    cause: str | None = None
    raw_data_id: int | None = None
    submission_id: int | None = None
    priority: str | None = None
    requested_by: str | None = None
    owner: str | None = None
    """Who sent the submission first: it stays theirs, whoever asked for the newest attempt."""


@dataclass(frozen=True, slots=True)
class ListedFold:
    """A fold's newest attempt and the newest run seen of it; blobs are `sha256:size`, times seconds, memory MiB."""

    fold_id: int
    attempt: int
    delivery: int
    is_projected: bool
    submission_id: int
    submission_version: int
    raw_data_id: int
    priority: str
    train_is: str
    test_is: str
    task_id: str
    requested_by: str
    requested_at: datetime
    request_offset: int | None
    run_attempt: int
    run_delivery: int
    run_rank: int
    runner_id: str | None
    run_at: datetime | None
    stage: str | None
    cause: str | None
    fault: str | None
    message: str | None
    log: str | None
    full_train_predictions: str | None
    full_train_shape: list[int] | None
    test_predictions: str | None
    test_shape: list[int] | None
    train_time: float
    train_cpu_time: float
    train_memory: float
    validation_time: float
    test_time: float
    test_cpu_time: float
    test_memory: float
    sandbox_level: int | None
    fetched: bool
    replaced: bool
    owner: str

    @property
    def is_current(self) -> bool:
        """Whether what was seen of a run is of the newest attempt."""
        return self.run_attempt >= self.attempt

    @property
    def state(self) -> State:
        """Where the newest attempt stands."""
        return state_of(request_attempt=self.attempt, run_attempt=self.run_attempt, run_rank=self.run_rank)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can happen in the newest attempt."""
        return self.is_current and is_terminal(self.run_rank)

    def fits(self, wanted: Wanted) -> bool:
        """Tell whether this is one of those wanted."""
        pairs = (
            (wanted.state, self.state.value),
            (wanted.cause, self.cause if self.is_current else None),
            (wanted.raw_data_id, self.raw_data_id),
            (wanted.submission_id, self.submission_id),
            (wanted.priority, self.priority),
            (wanted.requested_by, self.requested_by),
            (wanted.owner, self.owner),
        )
        return all(asked is None or asked == found for asked, found in pairs)


_CLAIM_IS_NEWER = "coalesce(c.attempt, 0) > coalesce(f.request_attempt, 0)"
# Of one attempt a producer may have written another request, which lost: what was claimed stands.
_CLAIM_STANDS = "coalesce(c.attempt, 0) >= coalesce(f.request_attempt, 0)"
_ASKED = ("submission_id", "submission_version", "raw_data_id", "priority", "train_is", "test_is", "task_id")
_SEEN = (
    "runner_id", "run_at", "stage", "cause", "fault", "message", "log", "full_train_predictions", "full_train_shape",
    "test_predictions", "test_shape",
)  # fmt: skip
_LONG = ("message", "log")
_MEASURED = (
    "train_time", "train_cpu_time", "train_memory", "validation_time", "test_time", "test_cpu_time", "test_memory",
)  # fmt: skip
_ATTEMPT = "greatest(c.attempt, f.request_attempt)"


def _asked(name: str) -> str:
    return f"case when {_CLAIM_STANDS} then c.{name} else f.{name} end"


_VERSION = _asked("submission_version")


def _columns(*, without: tuple[str, ...] = ()) -> str:
    return ", ".join(
        [
            "asked.fold_id",
            _ATTEMPT,
            f"case when {_CLAIM_IS_NEWER} then 1 else f.request_delivery end",
            f"not ({_CLAIM_IS_NEWER})",
            *(_asked(name) for name in (*_ASKED, "requested_by")),
            f"case when {_CLAIM_IS_NEWER} then c.accepted_at else f.requested_at end",
            f"case when {_CLAIM_IS_NEWER} then null else f.request_offset end",
            *(f"coalesce(f.{name}, 0)" for name in ("run_attempt", "run_delivery", "run_rank")),
            *("null" if name in without else f"f.{name}" for name in _SEEN),
            *(f"coalesce(f.{name}, 0)" for name in _MEASURED),
            "f.sandbox_level",
            f"""(coalesce(f.fetched_attempt, 0) >= {_ATTEMPT} or exists (
                select from intake.fetch_claim taken
                where taken.fold_id = asked.fold_id and taken.attempt = {_ATTEMPT} and taken.claimed_until > now()))""",
            f"coalesce({_VERSION} < greatest(seen.version, claimed.version, 0), false)",
            f"coalesce(claimed.submitted_by, {_asked('requested_by')})",
        ]
    )


_JOINED = f"""
    left join rm.fold f on f.fold_id = asked.fold_id
    left join intake.fold c on c.fold_id = asked.fold_id
    left join rm.submission seen on seen.submission_id = {_asked("submission_id")}
    left join intake.submission claimed on claimed.submission_id = {_asked("submission_id")}"""
_ONE = f"""
    select {_columns()} from (select %(fold_id)s::integer as fold_id) asked {_JOINED}
    where {_ATTEMPT} > 0"""  # noqa: S608 - constants
# Messages and logs are long and nobody reads a thousand of them.
_LISTED = _columns(without=_LONG)
_SOME = f"""
    select {_LISTED} from (select distinct unnest(%(ids)s::integer[]) as fold_id) asked {_JOINED}
    where {_ATTEMPT} > 0 order by asked.fold_id"""  # noqa: S608 - constants
_STATES = {
    State.STARTED: f"(run_attempt >= request_attempt and run_rank = {int(Rank.STARTED)})",
    State.TRAINED: f"(run_attempt >= request_attempt and run_rank = {int(Rank.TRAINED)})",
    State.ERROR: f"(run_attempt >= request_attempt and run_rank = {int(Rank.ERROR)})",
    State.TESTED: f"(run_attempt >= request_attempt and run_rank = {int(Rank.TESTED)})",
}
# The conditions are those of the partial indexes fold_open and fold_running, to the letter; of a fold that was handed
# back the next delivery is requested already.
_WAITING = (
    """(request_attempt > run_attempt
        or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery))""",
    f"run_rank between 1 and 3 and run_rank = {int(Rank.LOST)}",
)
_COMMON = ("raw_data_id", "submission_id", "priority", "requested_by")
_OWNED = "submission_id in (select submission_id from intake.submission where submitted_by = %(owner)s)"


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of folds by number, and the number to go on after, None at the end; it may hold fewer than asked for."""

    folds: list[ListedFold]
    after: int | None


def list_folds(cursor: Cursor, wanted: Wanted, *, after: int, limit: int) -> Listed:
    """Return the wanted folds that follow a number, replaced ones included."""
    values = {name: getattr(wanted, name) for name in (*_COMMON, "cause", "owner")}
    cursor.execute(_page(wanted), {**values, "after": after, "limit": limit})
    found = [ListedFold(*row) for row in cursor.fetchall()]
    return Listed([fold for fold in found if fold.fits(wanted)], found[-1].fold_id if len(found) == limit else None)


def find_fold(cursor: Cursor, fold_id: int) -> ListedFold | None:
    """Return a fold with its message and log, None if there is none."""
    cursor.execute(_ONE, {"fold_id": fold_id})
    row = cursor.fetchone()
    return ListedFold(*row) if row else None


def find_folds(cursor: Cursor, ids: Sequence[int]) -> list[ListedFold]:
    """Return the folds with these numbers, without messages and logs; unknown numbers are left out."""
    cursor.execute(_SOME, {"ids": list(ids)})
    return [ListedFold(*row) for row in cursor.fetchall()]


def _page(wanted: Wanted) -> str:
    common = [f"{name} = %({name})s" for name in _COMMON if getattr(wanted, name) is not None]
    if wanted.owner is not None:
        common.append(_OWNED)
    projected = ["fold_id > %(after)s", "request_attempt > 0", *common]
    if wanted.cause is not None:
        projected.append("cause = %(cause)s and run_attempt >= request_attempt")
    # In the order of an expression, or Postgres would walk through all folds by number to find the few that wait, or
    # are somebody's.
    order = "fold_id + 0" if wanted.state == State.TODO or wanted.owner is not None else "fold_id"
    parts = [_candidates("rm.fold", [*projected, state], order=order) for state in _states(wanted.state)]
    claimed = ["c.fold_id > %(after)s", *common]
    if wanted.cause is None and wanted.state is None:
        parts.append(_candidates("intake.fold c", claimed, order=order))
    elif wanted.state == State.TODO and wanted.cause is None:
        # What only the write side knows waits: for its split, for the log, or since a moment for the projection.
        parts.append(_candidates("intake.fold c", [*claimed, _RECENT, _UNPROJECTED]))
        parts.append(_candidates("intake.fold c", [*claimed, _UNSENT]))
    candidates = " union ".join(parts)
    return f"""
        select {_LISTED}
        from (select fold_id from ({candidates}) found order by fold_id limit %(limit)s) asked {_JOINED}
        where {_ATTEMPT} > 0 order by asked.fold_id"""  # noqa: S608 - constants


_UNPROJECTED = "not exists (select from rm.fold f where f.fold_id = c.fold_id and f.request_attempt >= c.attempt)"
_RECENT = "accepted_at > now() - interval '1 hour'"
_UNSENT = "fold_id in (select key::bigint from intake.outbox where sent_at is null and topic like '%%fold-requests.%%')"


def _states(name: str | None) -> tuple[str, ...]:
    if name is None:
        return ("true",)
    return _WAITING if name == State.TODO else (_STATES[State(name)],)


def _candidates(table: str, conditions: Sequence[str], *, order: str = "fold_id") -> str:
    return f"(select fold_id from {table} where {' and '.join(conditions)} order by {order} limit %(limit)s)"  # noqa: S608 - constants
