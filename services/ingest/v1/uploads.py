"""Uploading datasets piece by piece, without what the store has already; and having them split."""

from __future__ import annotations

import io
from typing import Annotated, Any

from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from pydantic import Field, Json, TypeAdapter, ValidationError

from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob, NamedBlob, Sha256
from datarun.intake import claims
from datarun.intake.claims import SPECIFIC
from datarun.intake.outbox import Queued
from services.ingest import commands
from services.ingest.commands import MAX_RANDOM_STATE, RequestSplit, UploadData
from services.ingest.datasets import Upload, check_workflow, claim_split, claim_upload, find_specific
from services.ingest.decisions import NAME_TAKEN
from services.ingest.files import check_names, media_type
from services.ingest.forms import Bad
from services.ingest.gateway import POSITION, Gateway
from services.ingest.refusals import Refusal, file_refused, invalid
from services.ingest.sources import check_specific
from services.ingest.tabular import UnknownColumn, check_csv
from services.ingest.v1.idempotency import HEADER, Key, answer_once
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.parts import Parts, read_parts
from services.ingest.v1.problems import unfit
from services.ingest.v1.values import Asked, DatasetId, Told

_KNOWN: TypeAdapter[dict[str, str]] = TypeAdapter(Json[dict[str, Sha256]])


class NewDataset(Asked):
    """The fields of a dataset; its files follow as parts with file names, fields first."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]*$", max_length=40)]
    target_column: Annotated[str, Field(min_length=1, max_length=200)]
    workflow_elements: Annotated[
        str, Field(min_length=1, max_length=200, description="Such as feature_extractor,classifier.")
    ]
    known: Annotated[
        str | None,
        Field(
            description="A JSON object from file names to sha256, of files that are not sent because the service has "
            "them; what it does not have is told by a 409 with `missing`."
        ),
    ] = None
    files: Annotated[bytes, Field(description="A file; repeat the part for more.")] = b""


class Uploaded(Told):
    """An accepted dataset."""

    id: DatasetId
    name: str
    sha256: Annotated[dict[str, str], Field(description="By file name.")]
    rows: int | None = None


class NewSplit(Asked):
    """How to split: a share of the rows is held out; without one the dataset's specific.py splits."""

    held_out_test: Annotated[float, Field(gt=0, lt=1)] | None = None
    random_state: Annotated[int, Field(ge=0, le=MAX_RANDOM_STATE)] = 42


class SplitTask(Told):
    """An accepted split."""

    dataset_id: DatasetId
    task_id: str


async def upload_dataset(call: Call[Nothing, None]) -> web.StreamResponse:
    """Accept a dataset."""
    gateway = call.gateway

    # With a key it may be this very upload again, which has to be read to be known.
    looks_early = call.request.headers.get(HEADER) is None

    async def before_file(parts: Parts, name: str) -> None:
        check_names([*parts.files, name])
        if looks_early and not parts.files:
            await _check_fields(gateway, parts)

    parts = await read_parts(call.request, gateway.blobs, most_bytes=gateway.max_blob_bytes, before_file=before_file)
    unknown = sorted(parts.fields.keys() - NewDataset.model_fields.keys())
    if unknown:
        raise invalid(**{unknown[0][:100] or "body": "There is no such field."})
    files = parts.files | await gateway.compute(lambda: _known(gateway, parts))
    # Without files the field is missing, not empty.
    asked = commands.upload_data({**parts.fields, **({"files": dict.fromkeys(files)} if files else {})})
    upload = await gateway.compute(lambda: _checked(gateway, asked, files, call.account.username))
    key = Key(call, repr((asked.name, asked.target_column, asked.workflow_elements, upload.files)))

    def work(cursor: Cursor) -> tuple[int, Queued]:
        return claim_upload(gateway, cursor, upload)

    async def accept() -> web.StreamResponse:
        once = key.around(work, lambda claim: (201, _told(claim[0], upload)))
        (number, _), position = await gateway.accept(once, lambda claim: [claim[1]])
        headers = {POSITION: position, "Location": f"/v1/datasets/{number}"}
        return answer(_told(number, upload), status=201, headers=headers)

    return await answer_once(call, key, accept)


async def _check_fields(gateway: Gateway, parts: Parts) -> None:
    """Raise Refusal for what is known to be wrong before the first file is read."""
    told = parts.fields.get("name", "")
    if await gateway.database.run(lambda cursor: claims.dataset_name_taken(cursor, told)):
        raise invalid(name=NAME_TAKEN)


async def split_dataset(call: Call[Nothing, NewSplit]) -> web.StreamResponse:
    """Have a dataset split."""
    gateway, dataset_id, body = call.gateway, call.path["dataset_id"], call.body
    asked = RequestSplit(raw_data_id=dataset_id, held_out_test=body.held_out_test, random_state=body.random_state)
    key = Key(call, body.model_dump_json())

    def work(cursor: Cursor) -> tuple[str, list[Queued]]:
        return claim_split(gateway, cursor, asked, call.account)

    async def accept() -> web.StreamResponse:
        once = key.around(work, lambda claim: (202, SplitTask(dataset_id=dataset_id, task_id=claim[0])))
        (task_id, queued), position = await gateway.accept(once, lambda claim: claim[1])
        headers = {POSITION: position} if queued else None
        return answer(SplitTask(dataset_id=dataset_id, task_id=task_id), status=202, headers=headers)

    return await answer_once(call, key, accept)


def _known(gateway: Gateway, parts: Parts) -> dict[str, Blob]:
    """Return the files that are not sent; raises Refusal for those that the store does not have."""
    text = parts.fields.get("known")
    if text is None:
        return {}
    try:
        announced = _KNOWN.validate_python(text)
    except ValidationError as error:
        raise unfit(error, where="/known") from error
    check_names([*parts.files, *announced])
    sizes = {name: gateway.blobs.size(sha256) for name, sha256 in announced.items()}
    missing = [name for name, size in sizes.items() if size is None]
    if missing:
        raise Refusal(409, {"detail": "Some files are not known here: send them.", "missing": missing})
    return {name: Blob(sha256=sha256, size=sizes[name] or 0) for name, sha256 in announced.items()}


def _checked(gateway: Gateway, asked: UploadData, files: dict[str, Blob], by: str) -> Upload:
    """Return an upload whose files are what they should be; raises Refusal."""
    check_names(files)
    specific = find_specific(files)
    if specific is None:
        check_workflow(asked.workflow_elements)
    name = specific or next(iter(files))
    rows = _check_content(asked, name, _read(gateway, name, files[name]), is_specific=specific is not None)
    renamed = {SPECIFIC if other == specific else other: blob for other, blob in files.items()}
    named = tuple(NamedBlob(name=other, blob=_typed(renamed[other], other)) for other in sorted(renamed))
    return Upload(asked, named, rows, by)


def _check_content(asked: UploadData, name: str, content: bytearray, *, is_specific: bool) -> int | None:
    try:
        if not is_specific:
            return check_csv(io.BytesIO(content), target_column=asked.target_column)
        check_specific(content)
    except UnknownColumn as unknown:
        raise Refusal(400, {"target_column": unknown.body}) from unknown
    except Bad as bad:
        raise file_refused(name, bad.body[0]) from bad
    return None


def _read(gateway: Gateway, name: str, blob: Blob) -> bytearray:
    try:
        return bytearray(gateway.blobs.get(blob))
    except (BlobMissing, BlobCorrupt) as error:
        raise Refusal(409, {"detail": "A file is not whole in the store: send it.", "missing": [name]}) from error


def _typed(blob: Blob, name: str) -> Blob:
    return blob.model_copy(update={"media_type": media_type(name)})


def _told(number: int, upload: Upload) -> Uploaded:
    sha256 = {file.name: file.blob.sha256 for file in upload.files}
    return Uploaded(id=number, name=upload.asked.name, sha256=sha256, rows=upload.rows)


_EXAMPLE: dict[str, Any] = {"name": "iris", "target_column": "species", "workflow_elements": "classifier"}
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/datasets",
        handle=upload_dataset,
        summary="Upload a dataset",
        tag="datasets",
        roles=ORGANISERS,
        multipart=NewDataset,
        answers={201: Says("It is accepted.", Uploaded, headers={"Location": "The dataset."})},
        problems=(406, 408, 409, 422, 507),
        takes_key=True,
        example={"body": {**_EXAMPLE, "files": ("iris.csv", "width,species\n1.5,a\n2.5,b\n0.5,a\n")}},
    ),
    Operation(
        method="POST",
        path="/v1/datasets/{dataset_id}/split",
        handle=split_dataset,
        summary="Split a dataset into train and test parts",
        tag="datasets",
        roles=ORGANISERS,
        body=NewSplit,
        answers={202: Says("It is accepted, or was before with the same parameters.", SplitTask)},
        problems=(409, 422),
        takes_key=True,
        example={"path": {"dataset_id": 1}, "body": {"held_out_test": 0.5}},
    ),
)
