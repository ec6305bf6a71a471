"""Running failed folds again, many at once: each is claimed by itself, so that none waits for the locks of another."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import Field, model_validator

from datarun.errors import DatabaseUnavailable
from datarun.events import Cause
from datarun.lifecycle import State
from datarun.readmodel import listing
from datarun.readmodel.listing import ListedFold, Wanted
from services.ingest.refusals import Refusal, detail
from services.ingest.v1.accepting import run_again
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.values import Asked, DatasetId, FoldId, SubmissionId, Told

AT_ONCE = 100


class RetryFolds(Asked):
    """Which failed folds to run again: these, or those of a dataset, a submission or a cause."""

    fold_ids: Annotated[list[FoldId], Field(min_length=1, max_length=AT_ONCE)] | None = None
    dataset_id: DatasetId | None = None
    submission_id: SubmissionId | None = None
    cause: Literal[tuple(Cause)] | None = None  # type: ignore[valid-type]
    after: Annotated[int, Field(ge=0, le=2_147_483_647, description="Only folds behind this number.")] = 0

    @model_validator(mode="after")
    def _names_some(self) -> Self:
        if not self.model_fields_set - {"after"}:
            raise ValueError("name folds, a dataset, a submission or a cause")
        return self


class Retried(Told):
    """A fold that runs again."""

    id: FoldId
    attempt: int


class LeftAlone(Told):
    """A fold that does not, and why."""

    id: FoldId
    detail: str


class Retries(Told):
    """What became of each; ask again with `after` while it is not null."""

    retried: list[Retried]
    left_alone: list[LeftAlone]
    after: int | None


async def retry_folds(call: Call[Nothing, RetryFolds]) -> web.StreamResponse:
    """Run failed folds again, up to a hundred."""
    retried: list[Retried] = []
    left_alone: list[LeftAlone] = []
    ids, after = await _chosen(call)
    for fold_id in ids:
        try:
            retried.append(await _retry(call, fold_id))
        except Refusal as refusal:
            left_alone.append(LeftAlone(id=fold_id, detail=str(refusal.body.get("detail"))))
        except DatabaseUnavailable:
            if not retried:
                raise
            # What was done is done; the client goes on from here.
            after = fold_id - 1
            break
    return answer(Retries(retried=retried, left_alone=left_alone, after=after))


async def _chosen(call: Call[Nothing, RetryFolds]) -> tuple[list[int], int | None]:
    body = call.body
    if body.fold_ids is not None:
        return sorted(set(body.fold_ids)), None
    wanted = Wanted(
        state=State.ERROR.value, cause=body.cause, raw_data_id=body.dataset_id, submission_id=body.submission_id
    )
    found = await call.gateway.database.run(
        lambda cursor: listing.list_folds(cursor, wanted, after=body.after, limit=AT_ONCE)
    )
    return [fold.fold_id for fold in found.folds if not fold.replaced], found.after


async def _retry(call: Call[Nothing, RetryFolds], fold_id: int) -> Retried:
    gateway = call.gateway

    event, queued = await gateway.database.run(
        lambda cursor: run_again(gateway, cursor, fold_id, check=_must_have_failed)
    )
    gateway.send(queued)
    return Retried(id=fold_id, attempt=event.attempt)


def _must_have_failed(fold: ListedFold) -> None:
    if fold.state is not State.ERROR:
        raise detail(409, f"Fold {fold.fold_id} has not failed: it is {fold.state}.")


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/retry",
        handle=retry_folds,
        summary="Run failed folds again",
        tag="folds",
        roles=ORGANISERS,
        body=RetryFolds,
        answers={200: Says("What became of each.", Retries)},
        example={"body": {"submission_id": 1, "cause": "lost"}},
    ),
)
