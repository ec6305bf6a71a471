"""Cancelling a fold: its attempt is over, who runs it is told to end it, and who is handed its request passes it over.

Decided under the fold's lock, and yet a result may have been in the log before: then that is how the fold ended, and
the answer says so.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Literal

from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from pydantic import Field, StringConstraints

from datarun.events import Cause, FoldCancelled, FoldFenced
from datarun.intake import cancellations, claims, outbox
from datarun.intake.cancellations import Cancellation
from datarun.intake.outbox import Queued
from datarun.lifecycle import State
from datarun.readmodel import queries
from datarun.readmodel.queries import KnownFold
from services.ingest.gateway import POSITION, VISIBLE_SECONDS, Gateway
from services.ingest.refusals import Refusal, not_found
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.values import Asked, FoldId, Told

LOOK_SECONDS = 0.05


class CancelFold(Asked):
    """Why a fold is cancelled."""

    reason: Annotated[str, StringConstraints(max_length=200), Field(description="Shown with the fold.")] = ""


class Cancelled(Told):
    """A cancelled fold, and who cancelled it first."""

    fold_id: FoldId
    attempt: int
    state: str
    cause: Literal["cancelled"] = "cancelled"
    cancelled_by: str
    reason: str


async def cancel_fold(call: Call[Nothing, CancelFold]) -> web.StreamResponse:
    """Cancel a fold: 200 once it is seen to be cancelled, 202 until then, 409 if it has ended."""
    gateway = call.gateway
    by = call.account.username
    work = partial(_cancel, gateway, call.path["fold_id"], by, call.body.reason.strip())
    (cancelled, queued), position = await gateway.accept(work, lambda claim: claim[1])
    fold = await _seen(gateway, cancelled, seconds=0 if queued else VISIBLE_SECONDS)
    _check(fold, cancelled)
    is_over = _is_over(fold, cancelled)
    return answer(
        _shown(cancelled, State.ERROR if is_over else fold.state),
        status=200 if is_over else 202,
        headers={POSITION: position} if queued else None,
    )


def _cancel(gateway: Gateway, fold_id: int, by: str, reason: str, cursor: Cursor) -> tuple[Cancellation, list[Queued]]:
    claims.lock_fold(cursor, fold_id)
    found = queries.folds_by_ids(cursor, [fold_id])
    if not found:
        raise not_found()
    [fold] = found
    known = cancellations.find(cursor, fold_id, fold.attempt)
    if known is not None:
        return known, []
    _check(fold, None)
    cancelled = Cancellation(fold_id, fold.attempt, by, reason)
    at = cancellations.record(cursor, cancelled)
    # The fence is of use the sooner; the position to answer is that of the end.
    fence = FoldFenced(fold_id=fold_id, attempt=fold.attempt, cause="cancelled")
    end = FoldCancelled(
        fold_id=fold_id,
        attempt=fold.attempt,
        submission_id=fold.submission_id,
        raw_data_id=fold.raw_data_id,
        cancelled_by=by,
        reason=reason,
    )
    return cancelled, outbox.add(cursor, [gateway.entry(fence), gateway.entry(end, at=at)])


async def _seen(gateway: Gateway, cancelled: Cancellation, *, seconds: float) -> KnownFold:
    """Return the fold as soon as the read model knows its end, or as it is after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        [fold] = await gateway.database.run(lambda cursor: queries.folds_by_ids(cursor, [cancelled.fold_id]))
        if _is_over(fold, cancelled) or loop.time() >= deadline:
            return fold
        await asyncio.sleep(LOOK_SECONDS)


def _is_over(fold: KnownFold, cancelled: Cancellation) -> bool:
    return fold.has_ended or fold.attempt > cancelled.attempt


def _check(fold: KnownFold, cancelled: Cancellation | None) -> None:
    """Raise Refusal for a fold that ended otherwise; one forced anew since then was cancelled all the same."""
    is_newer = cancelled is not None and fold.attempt > cancelled.attempt
    is_cancelled = cancelled is not None and fold.cause == Cause.CANCELLED
    if fold.has_ended and not is_newer and not is_cancelled:
        raise Refusal(409, {"detail": f"Fold {fold.fold_id} has ended.", "state": fold.state})


def _shown(cancelled: Cancellation, state: State) -> Cancelled:
    return Cancelled(
        fold_id=cancelled.fold_id,
        attempt=cancelled.attempt,
        state=state.value,
        cancelled_by=cancelled.cancelled_by,
        reason=cancelled.reason,
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/folds/{fold_id}/cancel",
        handle=cancel_fold,
        summary="Cancel a fold",
        tag="folds",
        roles=ORGANISERS,
        body=CancelFold,
        body_may_be_absent=True,
        answers={
            200: Says("It does not run any more.", Cancelled),
            202: Says("It will be cancelled once the log takes it.", Cancelled),
        },
        problems=(409,),
        example={"path": {"fold_id": 1}, "body": {"reason": "sent by mistake"}},
    ),
)
