"""Having folds accepted: a new one, one that is run again, one that changes its queue."""

from __future__ import annotations

import base64
import uuid
import zlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from pydantic import Field

from datarun.events import Blob, FoldRequested, Priority
from datarun.intake import claims, repeats
from datarun.readmodel import listing
from datarun.readmodel.listing import ListedFold
from services.ingest import claiming, folds
from services.ingest.claiming import Claimed, Work
from services.ingest.commands import FORCES, PRIORITIES, Force, RequestFold
from services.ingest.gateway import POSITION, Gateway
from services.ingest.refusals import Refusal, detail, not_found
from services.ingest.v1.folds import State
from services.ingest.v1.idempotency import Key, answer_once
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.values import Asked, DatasetId, FoldId, SubmissionId, Told
from services.ingest.v1.values import Priority as QueueName

MOST_INDICES = 1_000_000
RUNNING = ("STARTED", "TRAINED")

Index = Annotated[int, Field(ge=0, le=2_147_483_646)]
Indices = Annotated[
    list[Index], Field(max_length=MOST_INDICES, description="Positions among the rows of the train part, each once.")
]


class Binary(Asked):
    """A file that is not text."""

    base64: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class RequestedFold(Asked):
    """A fold of a submission; the submission's first fold brings its files and names its dataset."""

    id: FoldId
    submission_id: SubmissionId
    dataset_id: DatasetId | None = None
    files: Annotated[dict[str, str | Binary], Field(min_length=1, max_length=100)] | None = None
    train_is: Annotated[Indices, Field(min_length=1)]
    test_is: Indices = Field(default_factory=list)
    priority: QueueName = "L"
    force: Annotated[
        Literal["submission", "submission_fold"] | None,
        Field(description="Run it anew: the fold alone, or a new version of the submission with this fold."),
    ] = None


class PriorityChange(Asked):
    """The queue a waiting fold is to wait in."""

    priority: QueueName


class Accepted(Told):
    """An accepted attempt of a fold."""

    id: FoldId
    submission_id: SubmissionId
    submission_version: int
    dataset_id: DatasetId
    attempt: int
    priority: QueueName
    state: State
    task_id: str


async def create_fold(call: Call[Nothing, RequestedFold]) -> web.StreamResponse:
    """Accept a fold."""
    gateway, body = call.gateway, call.body
    key = Key(call, body.model_dump_json())
    asked = await gateway.compute(lambda: _command(body))

    def around(work: Work) -> Work:
        return key.around(work, lambda claim: (201, _told(claim[0])))

    async def accept() -> web.StreamResponse:
        event, position = await folds.accept_fold(gateway, asked, call.account, around=around if key.is_given else None)
        where = {POSITION: position, "Location": f"/v1/folds/{event.fold_id}"}
        return answer(_told(event), status=201, headers=where)

    return await answer_once(call, key, accept)


async def retry_fold(call: Call[Nothing, None]) -> web.StreamResponse:
    """Run a fold that has ended once more, as it was asked for."""
    return await _again(call, check=_must_have_ended, priority=None)


async def change_fold(call: Call[Nothing, PriorityChange]) -> web.StreamResponse:
    """Let a waiting fold wait in the other queue: as a new attempt there, the one before being fenced."""
    wanted = Priority(call.body.priority)

    def check(fold: ListedFold) -> None:
        if fold.has_ended or fold.state in RUNNING:
            raise Refusal(409, {"detail": f"Fold {fold.fold_id} does not wait any more.", "state": fold.state.value})

    return await _again(call, check=check, priority=wanted)


async def _again(
    call: Call[Any, Any], *, check: Callable[[ListedFold], None], priority: Priority | None
) -> web.StreamResponse:
    gateway, fold_id = call.gateway, call.path["fold_id"]
    key = Key(call, call.body.model_dump_json() if call.body else "")

    def work(cursor: Cursor) -> Claimed:
        return run_again(gateway, cursor, fold_id, check=check, priority=priority)

    async def accept() -> web.StreamResponse:
        once = key.around(work, lambda claim: (202, _told(claim[0])))
        (event, queued), position = await gateway.accept(once, lambda claim: claim[1])
        return answer(_told(event), status=202, headers={POSITION: position} if queued else None)

    return await answer_once(call, key, accept)


def run_again(
    gateway: Gateway,
    cursor: Cursor,
    fold_id: int,
    *,
    check: Callable[[ListedFold], None],
    priority: Priority | None = None,
) -> Claimed:
    """Claim the next attempt of a fold, with all else as it was; a check may refuse it under its lock.

    A fold that is to wait where it waits is left alone. Raises Refusal.
    """
    before = repeats.find(cursor, fold_id)
    if before is None:
        raise not_found()
    seen = claims.lock_fold_context(
        cursor, fold_id=fold_id, submission_id=before.submission_id, raw_data_id=None, may_write_submission=False
    )
    asked, fold = repeats.find(cursor, fold_id), listing.find_fold(cursor, fold_id)
    if asked is None or fold is None or seen.dataset is None or seen.submission is None:
        raise not_found()
    if asked.submission_id != before.submission_id or asked.submission_version != seen.submission.version:
        raise detail(409, f"Fold {fold_id} is of a version of its submission that was replaced.")
    check(fold)
    event = FoldRequested(
        fold_id=fold_id,
        attempt=asked.attempt + 1,
        submission_id=asked.submission_id,
        submission_version=asked.submission_version,
        priority=priority or Priority(asked.priority),
        dataset=seen.dataset.manifest,
        files=seen.submission.files,
        train_is=_blob(asked.train_is),
        test_is=_blob(asked.test_is),
        task_id=str(uuid.uuid4()),
        requested_by=asked.requested_by,
        request_digest=asked.request_digest or None,
    )
    if priority is not None and priority.value == asked.priority:
        return event.model_copy(update={"attempt": asked.attempt, "task_id": asked.task_id}), []
    return event, claiming.record(gateway, cursor, event, seen.dataset, at=seen.at)


def _must_have_ended(fold: ListedFold) -> None:
    if not fold.has_ended:
        raise Refusal(409, {"detail": f"Fold {fold.fold_id} has not ended.", "state": fold.state.value})


def _command(body: RequestedFold) -> RequestFold:
    files = None
    if body.files is not None:
        files = {name: _packed(_content(content)) for name, content in body.files.items()}
    return RequestFold(
        databoard_sf_id=body.id,
        databoard_s_id=body.submission_id,
        train_is=_packed(np.array(body.train_is, dtype="<i8").tobytes()),
        test_is=_packed(np.array(body.test_is, dtype="<i8").tobytes()),
        priority=PRIORITIES[body.priority],
        force=FORCES[body.force] if body.force else Force(),
        raw_data=body.dataset_id,
        files=files,
    )


def _content(content: str | Binary) -> bytes:
    if isinstance(content, str):
        return content.encode()
    try:
        return base64.b64decode(content.base64, validate=True)
    except ValueError as error:
        raise detail(400, "A file is not valid base64.") from error


def _packed(content: bytes) -> str:
    # The form of the 2016 interface, which the same code accepts; level 1 costs next to nothing.
    return base64.b64encode(zlib.compress(content, 1)).decode()


def _blob(name: str) -> Blob:
    sha256, _, size = name.partition(":")
    return Blob(sha256=sha256, size=int(size))


def _told(event: FoldRequested) -> Accepted:
    return Accepted(
        id=event.fold_id,
        submission_id=event.submission_id,
        submission_version=event.submission_version,
        dataset_id=event.dataset.raw_data_id,
        attempt=event.attempt,
        priority=event.priority.value,
        state="TODO",
        task_id=event.task_id,
    )


_EXAMPLE = {"id": 1, "submission_id": 1, "dataset_id": 1, "train_is": [0, 1, 2, 3], "test_is": [4, 5]}
_SOURCE = "class Classifier:\n    ...\n"
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/folds",
        handle=create_fold,
        summary="Have a fold trained and tested",
        tag="folds",
        body=RequestedFold,
        answers={201: Says("It is accepted.", Accepted, headers={"Location": "The fold."})},
        problems=(403, 422),
        takes_key=True,
        example={"body": {**_EXAMPLE, "files": {"classifier.py": _SOURCE}}},
    ),
    Operation(
        method="PATCH",
        path="/v1/folds/{fold_id}",
        handle=change_fold,
        summary="Change the priority of a waiting fold",
        tag="folds",
        roles=ORGANISERS,
        body=PriorityChange,
        answers={202: Says("It waits in that queue, as a new attempt if it was in the other.", Accepted)},
        problems=(409, 422),
        takes_key=True,
        example={"path": {"fold_id": 1}, "body": {"priority": "H"}},
    ),
    Operation(
        method="POST",
        path="/v1/folds/{fold_id}/retry",
        handle=retry_fold,
        summary="Run a fold that has ended again",
        tag="folds",
        roles=ORGANISERS,
        answers={202: Says("Its next attempt is accepted.", Accepted)},
        problems=(409, 422),
        takes_key=True,
        example={"path": {"fold_id": 1}},
    ),
)
