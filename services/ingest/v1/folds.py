"""Folds as /v1 shows them: in pages by what they are, and one with its message and log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from datarun.events import Cause
from datarun.readmodel import listing
from datarun.readmodel.listing import ListedFold, Wanted
from services.ingest.refusals import not_found
from services.ingest.v1.as_of import AsOfQuery, fold_then, folds_then
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.pages import ByNumber, Page, page_answer
from services.ingest.v1.values import DatasetId, FoldId, Number, Priority, SubmissionId, Text, Told
from services.ingest.v1.waiting import ENDS, asked_wait

State = Literal["TODO", "STARTED", "TRAINED", "TESTED", "ERROR"]


class FoldFilter(ByNumber, AsOfQuery):
    """Which folds to list."""

    state: State | None = None
    cause: Annotated[Literal[tuple(Cause)] | None, Field(description="Why it failed.")] = None  # type: ignore[valid-type]
    dataset_id: Annotated[DatasetId, Number] | None = None
    submission_id: Annotated[SubmissionId, Number] | None = None
    priority: Priority | None = None
    requested_by: Text | None = None


class Metrics(Told):
    """Wall and processor time in seconds, peak memory in MiB, as the runner measured them."""

    train_time: float
    train_cpu_time: float
    train_memory: float
    validation_time: float
    test_time: float
    test_cpu_time: float
    test_memory: float


class Array(Told):
    """Predictions that can be fetched: float64, so many bytes in so many dimensions."""

    shape: list[int]
    size: int
    sha256: str


class Fold(Told):
    """A fold: what its newest attempt is, and how it goes."""

    id: FoldId
    submission_id: SubmissionId
    submission_version: int
    replaced: Annotated[bool, Field(description="Whether its submission has a newer version.")]
    dataset_id: DatasetId
    priority: Priority
    state: State
    attempt: int
    delivery: int
    requested_by: str
    requested_at: datetime
    runner_id: str | None = None
    changed_at: Annotated[datetime | None, Field(description="When the last was heard of this attempt.")] = None
    stage: str | None = None
    cause: str | None = None
    fault: Annotated[str | None, Field(description="Whose doing a failure was: user, limit or platform.")] = None
    sandbox_level: int | None = None
    metrics: Metrics | None = None
    full_train_predictions: Array | None = None
    test_predictions: Array | None = None


class WholeFold(Fold):
    """A fold with what its submission said."""

    message: str | None = None
    log: str | None = None


FoldPage = Page[Fold]


async def list_folds(call: Call[FoldFilter, None]) -> web.StreamResponse:
    """Return a page of folds."""
    query = call.query
    wanted = Wanted(
        state=query.state,
        cause=query.cause,
        raw_data_id=query.dataset_id,
        submission_id=query.submission_id,
        priority=query.priority,
        requested_by=query.requested_by,
        owner=call.only_of,
    )
    if query.as_of is not None:
        found = await folds_then(call, wanted, after=query.after, limit=query.limit)
    else:
        found = await call.gateway.database.run(
            lambda cursor: listing.list_folds(cursor, wanted, after=query.after, limit=query.limit)
        )
    return page_answer(call.request, FoldPage, [Fold(**shown(fold)) for fold in found.folds], after=found.after)


async def get_fold(call: Call[AsOfQuery, None]) -> web.StreamResponse:
    """Return a fold; with `Prefer: wait=30` once it has ended, or after so many seconds."""
    fold = await find(call)
    if call.query.as_of is not None:
        return answer(whole(await fold_then(call, fold)))
    wait, ends = asked_wait(call.request), call.request.app[ENDS]
    if fold.has_ended or not wait or not await ends.wait(call.gateway.database, fold.fold_id, seconds=wait):
        return answer(whole(fold))
    return answer(whole(await find(call)), headers={"Preference-Applied": f"wait={wait}"})


async def find(call: Call[Any, Any]) -> ListedFold:
    """Return the fold of a path, if who asks may see it; raises Refusal."""
    fold_id = call.path["fold_id"]
    fold = await call.gateway.database.run(lambda cursor: listing.find_fold(cursor, fold_id))
    if fold is None or call.only_of not in (None, fold.owner):
        raise not_found()
    return fold


def whole(fold: ListedFold) -> WholeFold:
    """Show a fold with all there is."""
    message, log = (fold.message, fold.log) if fold.is_current else (None, None)
    return WholeFold(**shown(fold), message=message, log=log)


def shown(fold: ListedFold) -> dict[str, Any]:
    """Show a fold; what was seen of an earlier attempt is not its own."""
    asked: dict[str, Any] = {
        "id": fold.fold_id,
        "submission_id": fold.submission_id,
        "submission_version": fold.submission_version,
        "replaced": fold.replaced,
        "dataset_id": fold.raw_data_id,
        "priority": fold.priority,
        "state": fold.state.value,
        "attempt": fold.attempt,
        "delivery": fold.delivery,
        "requested_by": fold.requested_by,
        "requested_at": fold.requested_at,
    }
    if not fold.is_current:
        return asked
    return asked | {
        "runner_id": fold.runner_id,
        "changed_at": fold.run_at,
        "stage": fold.stage,
        "cause": fold.cause,
        "fault": fold.fault,
        "sandbox_level": fold.sandbox_level,
        "metrics": Metrics(**{name: getattr(fold, name) for name in Metrics.model_fields}),
        "full_train_predictions": _array(fold.full_train_predictions, fold.full_train_shape),
        "test_predictions": _array(fold.test_predictions, fold.test_shape),
    }


def _array(name: str | None, shape: list[int] | None) -> Array | None:
    if name is None or shape is None:
        return None
    sha256, _, size = name.partition(":")
    return Array(shape=shape, size=int(size), sha256=sha256)


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/folds",
        handle=list_folds,
        summary="List folds",
        tag="folds",
        query=FoldFilter,
        answers={
            200: Says(
                "A page of folds by number, perhaps of fewer than `limit`; a participant sees their own.", FoldPage
            )
        },
        example={"query": {"state": "ERROR", "limit": 10}},
    ),
    Operation(
        method="GET",
        path="/v1/folds/{fold_id}",
        handle=get_fold,
        summary="Look at a fold",
        tag="folds",
        query=AsOfQuery,
        answers={
            200: Says(
                "The fold.", WholeFold, headers={"Preference-Applied": "The wait that was granted, if it waited."}
            )
        },
        takes_wait=True,
        example={"path": {"fold_id": 1}},
    ),
)
