"""Datasets and their splits, as /v1 shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from datarun.readmodel import catalogue
from datarun.readmodel.catalogue import ListedDataset, ListedSubmission
from services.ingest.gateway import Gateway
from services.ingest.refusals import not_found
from services.ingest.v1.as_of import AsOfQuery, dataset_then, datasets_then, submission_then
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.pages import ByNumber, Page, page_answer
from services.ingest.v1.values import DatasetId, Number, SubmissionId, Told


class DatasetQuery(ByNumber, AsOfQuery):
    """Which datasets to list."""


class SubmissionFilter(ByNumber):
    """Which submissions to list."""

    dataset_id: Annotated[DatasetId, Number] | None = None


class File(Told):
    """A file by its name and content."""

    name: str
    sha256: str
    size: Annotated[int, Field(description="Bytes.")]
    media_type: str


SplitState = Literal["none", "pending", "done", "failed"]


class Split(Told):
    """The newest split that was asked for, and what came of it."""

    state: SplitState
    attempt: int
    task_id: str | None = None
    kind: Literal["standard", "custom"] | None = None
    held_out_test: float | None = None
    random_state: int | None = None
    train_rows: int | None = None
    test_rows: int | None = None
    error: Annotated[str | None, Field(description="What went wrong; for organisers.")] = None
    finished_at: datetime | None = None


class Dataset(Told):
    """A dataset."""

    id: DatasetId
    name: str
    target_column: str
    workflow_elements: str
    files: list[File]
    rows: Annotated[int | None, Field(description="Data rows of a standard dataset.")] = None
    uploaded_by: str
    uploaded_at: datetime
    split: Split


class Submission(Told):
    """A submission's newest version, and how its folds stand."""

    id: SubmissionId
    dataset_id: DatasetId
    version: int
    files: list[File]
    accepted_at: Annotated[
        datetime | None, Field(description="Null of the past, of a version that has been replaced since.")
    ] = None
    folds: Annotated[dict[str, int], Field(description="How many folds of this version are in which state.")]


DatasetPage = Page[Dataset]
SubmissionPage = Page[Submission]


async def list_datasets(call: Call[DatasetQuery, None]) -> web.StreamResponse:
    """Return a page of datasets."""
    query = call.query
    if query.as_of is not None:
        found, after = await datasets_then(call, after=query.after, limit=query.limit)
    else:
        found = await call.gateway.database.run(
            lambda cursor: catalogue.list_datasets(cursor, after=query.after, limit=query.limit)
        )
        after = found[-1].raw_data_id if len(found) == query.limit else None
    return page_answer(call.request, DatasetPage, [shown(one, call.account.role) for one in found], after=after)


async def get_dataset(call: Call[AsOfQuery, None]) -> web.StreamResponse:
    """Return a dataset."""
    return answer(shown(await _find(call), call.account.role))


async def get_split(call: Call[AsOfQuery, None]) -> web.StreamResponse:
    """Return a dataset's split."""
    return answer(shown(await _find(call), call.account.role).split)


async def list_submissions(call: Call[SubmissionFilter, None]) -> web.StreamResponse:
    """Return a page of submissions."""
    query = call.query
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_submissions(
            cursor, after=query.after, limit=query.limit, only_of=call.only_of, raw_data_id=query.dataset_id
        )
    )
    after = found[-1].submission_id if len(found) == query.limit else None
    return page_answer(call.request, SubmissionPage, [_shown(one) for one in found], after=after)


async def get_submission(call: Call[AsOfQuery, None]) -> web.StreamResponse:
    """Return a submission."""
    before = call.path["submission_id"] - 1
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_submissions(cursor, after=before, limit=1, only_of=call.only_of)
    )
    if not found or found[0].submission_id != before + 1:
        raise not_found()
    then = None if call.query.as_of is None else await submission_then(call, found[0])
    return answer(_shown(then or found[0]))


async def _find(call: Call[Any, Any]) -> ListedDataset:
    number = call.path["dataset_id"]
    found = await dataset_numbered(call.gateway, number)
    return found if call.query.as_of is None else await dataset_then(call, number)


async def dataset_numbered(gateway: Gateway, number: int) -> ListedDataset:
    """Return a dataset by its number; raises Refusal."""
    found = await gateway.database.run(lambda cursor: catalogue.list_datasets(cursor, after=number - 1, limit=1))
    if not found or found[0].raw_data_id != number:
        raise not_found()
    return found[0]


def shown(dataset: ListedDataset, role: str) -> Dataset:
    """Show a dataset; what its organiser's code said is not for everybody."""
    return Dataset(
        id=dataset.raw_data_id,
        name=dataset.name,
        target_column=dataset.target_column,
        workflow_elements=dataset.workflow_elements,
        files=_files(dataset.files),
        rows=dataset.rows,
        uploaded_by=dataset.uploaded_by,
        uploaded_at=dataset.uploaded_at,
        split=split_of(dataset, with_error=role in ORGANISERS),
    )


def split_of(dataset: ListedDataset, *, with_error: bool) -> Split:
    """Show a split, the newest that was asked for; until it is made, as it was asked for."""
    is_over = dataset.result_attempt >= dataset.split_attempt
    made = dataset.split if is_over else None
    told = {
        **(dataset.split_request or {}),
        **{name: value for name, value in (made or {}).items() if value is not None},
    }
    names = ("kind", "held_out_test", "random_state", "train_rows", "test_rows")
    return Split(
        state="none" if not dataset.split_attempt else "pending" if not is_over else "done" if made else "failed",
        attempt=dataset.split_attempt,
        task_id=dataset.split_task_id,
        error=dataset.split_error if is_over and with_error else None,
        finished_at=dataset.split_at if is_over else None,
        **{name: told.get(name) for name in names},
    )


def _shown(submission: ListedSubmission) -> Submission:
    return Submission(
        id=submission.submission_id,
        dataset_id=submission.raw_data_id,
        version=submission.version,
        files=_files(submission.files),
        accepted_at=submission.accepted_at,
        folds=submission.folds,
    )


def _files(stored: list[dict[str, Any]]) -> list[File]:
    keys = ("sha256", "size", "media_type")
    return [File(name=file["name"], **{key: file["blob"][key] for key in keys}) for file in stored]


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/datasets",
        handle=list_datasets,
        summary="List datasets",
        tag="datasets",
        query=DatasetQuery,
        answers={200: Says("A page of datasets by number.", DatasetPage)},
        example={"query": {"limit": 10}},
    ),
    Operation(
        method="GET",
        path="/v1/datasets/{dataset_id}",
        handle=get_dataset,
        summary="Look at a dataset",
        tag="datasets",
        query=AsOfQuery,
        answers={200: Says("The dataset.", Dataset)},
        example={"path": {"dataset_id": 1}},
    ),
    Operation(
        method="GET",
        path="/v1/datasets/{dataset_id}/split",
        handle=get_split,
        summary="Look at a dataset's split",
        tag="datasets",
        query=AsOfQuery,
        answers={200: Says("The split.", Split)},
        example={"path": {"dataset_id": 1}},
    ),
    Operation(
        method="GET",
        path="/v1/submissions",
        handle=list_submissions,
        summary="List submissions",
        tag="submissions",
        query=SubmissionFilter,
        answers={200: Says("A page of submissions by number; a participant sees their own.", SubmissionPage)},
        example={"query": {"limit": 10}},
    ),
    Operation(
        method="GET",
        path="/v1/submissions/{submission_id}",
        handle=get_submission,
        summary="Look at a submission",
        tag="submissions",
        query=AsOfQuery,
        answers={200: Says("The submission.", Submission)},
        example={"path": {"submission_id": 1}},
    ),
)
