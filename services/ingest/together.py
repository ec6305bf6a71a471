"""Claims of many folds in one transaction: one look under all locks, one record of what was accepted, one sync.

What changes a submission or runs a fold anew has a transaction of its own (`claiming`).
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple

import structlog
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatabaseUnavailable, DatarunError
from datarun.events import FoldRequested
from datarun.intake import fold_claims
from datarun.intake.claims import FoldClaim, FoldContext
from datarun.intake.fold_claims import Asked
from datarun.intake.outbox import Entry, Queued
from services.ingest import claiming
from services.ingest.auth import Account
from services.ingest.bodies import QUICK_BYTES
from services.ingest.claiming import Claimed, Stored
from services.ingest.commands import RequestFold
from services.ingest.decisions import decide_fold
from services.ingest.gateway import Gateway, hold
from services.ingest.refusals import Refusal

log = structlog.get_logger(__name__)

STORING_THREADS = 4
WORTH_THREADS = 3
"""From so many new ones on bytes are stored side by side."""

_Outcome = Claimed | Exception


class Ask(NamedTuple):
    """A fold somebody wants."""

    asked: RequestFold
    account: Account


class _Accepted(NamedTuple):
    event: FoldRequested
    at: datetime
    owed: list[Entry]


def may_join(asked: RequestFold) -> bool:
    """Tell whether a fold can be claimed together with others: it is small and writes nothing but itself."""
    return asked.files is None and not asked.force.fold and asked.size <= QUICK_BYTES


async def claim_together(gateway: Gateway, asks: Sequence[Ask], seconds: float) -> Sequence[_Outcome]:
    """Return for each its claim or what it is refused with, once their transaction is committed.

    Raises DatabaseUnavailable within some seconds. Whatever else one of them brings about is kept from the others.
    """
    try:
        return await gateway.database.run(
            partial(_claim_all, gateway, asks),
            is_recorded=lambda cursor, made: hold(cursor, _rows(made)),
            seconds=seconds,
        )
    except DatabaseUnavailable:
        raise
    except Exception as error:
        if len(asks) == 1:
            raise
        log.warning("claims.not_together", count=len(asks), reason=str(error))
        alone = (claim_together(gateway, [ask], seconds) for ask in asks)
        return [_only(made) for made in await asyncio.gather(*alone, return_exceptions=True)]


def _only(made: Sequence[_Outcome] | BaseException) -> _Outcome:
    if isinstance(made, Exception):
        return made
    if isinstance(made, BaseException):
        raise made
    return made[0]


def _claim_all(gateway: Gateway, asks: Sequence[Ask], cursor: Cursor) -> list[_Outcome]:
    seen = fold_claims.lock_fold_contexts(
        cursor, [Asked(asked.databoard_sf_id, asked.databoard_s_id, asked.raw_data) for asked, _ in asks]
    )
    taken: dict[int, FoldClaim] = {}
    decided = [
        stored if isinstance(stored, Exception) else _decide(gateway, cursor, stored, context, taken, task_id)
        for stored, context, task_id in zip(_store_all(gateway, asks, seen), seen, _task_ids(len(asks)), strict=True)
    ]
    accepted = [one for one in decided if isinstance(one, _Accepted)]
    owed = [entry for one in accepted for entry in one.owed]
    rows = iter(fold_claims.record_folds(cursor, [(one.event, one.at) for one in accepted], owed))
    return [_claimed(one, rows) if isinstance(one, _Accepted) else one for one in decided]


def _store_all(gateway: Gateway, asks: Sequence[Ask], seen: Sequence[FoldContext]) -> list[Stored | Exception]:
    """Make the bytes of all durable, new ones side by side because each waits for the disk."""
    pairs = list(zip(asks, seen, strict=True))
    texts = {text for asked, _ in asks for text in (asked.train_is, asked.test_is)}
    new = sum(gateway.known_indices.find(text, rows=None) is None for text in texts)
    if new < WORTH_THREADS:
        return _store_some(gateway, pairs)
    shares = [pairs[first::STORING_THREADS] for first in range(STORING_THREADS)]
    stored = [iter(share) for share in gateway.storing.map(partial(_store_some, gateway), shares)]
    return [next(stored[place % STORING_THREADS]) for place in range(len(pairs))]


def _store_some(gateway: Gateway, pairs: Sequence[tuple[Ask, FoldContext]]) -> list[Stored | Exception]:
    return [_store(gateway, ask, context) for ask, context in pairs]


def _store(gateway: Gateway, ask: Ask, seen: FoldContext) -> Stored | Exception:
    try:
        return claiming.store(gateway, ask.asked, seen, ask.account)
    except (DatarunError, OSError) as error:
        return error


def _decide(
    gateway: Gateway, cursor: Cursor, stored: Stored, seen: FoldContext, taken: dict[int, FoldClaim], task_id: str
) -> _Accepted | Exception:
    """Decide about one, knowing what those before it took."""
    fold_id = stored.asked.databoard_sf_id
    if fold_id in taken:
        seen = replace(seen, fold=taken[fold_id])
    try:
        decision = decide_fold(stored.asked, seen, files_digest=None, only=stored.account.only)
    except Refusal as refusal:
        return refusal
    if seen.submission is None:
        raise RuntimeError("a fold without files was accepted as a submission's first")
    event = claiming.requested(stored, decision, seen.submission.files, task_id=task_id)
    taken[fold_id] = FoldClaim(
        fold_id, event.attempt, event.submission_id, event.submission_version, seen.submission.submitted_by
    )
    return _Accepted(event, seen.at, claiming.owed(gateway, cursor, event, decision.dataset, at=seen.at))


def _task_ids(count: int) -> list[str]:
    # Asked for one by one, the interpreter's lock is given up for each of them.
    randomness = os.urandom(16 * count)
    return [str(uuid.UUID(bytes=randomness[at : at + 16], version=4)) for at in range(0, len(randomness), 16)]


def _claimed(accepted: _Accepted, rows: Iterator[Queued]) -> Claimed:
    queued, *fences = islice(rows, len(accepted.owed))
    return accepted.event, [*fences, queued]


def _rows(made: Sequence[_Outcome]) -> list[Queued]:
    return [row for one in made if not isinstance(one, Exception) for row in one[1]]
