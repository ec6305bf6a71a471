"""Datasets: upload, list, split."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.events import Dataset, DataUploaded, NamedBlob, SplitRequested
from datarun.intake import claims
from datarun.intake.claims import SPECIFIC
from datarun.intake.outbox import Queued, add
from datarun.readmodel import queries
from datarun.readmodel.queries import KnownDataset
from services.ingest import commands, legacy
from services.ingest.answers import json_answer
from services.ingest.auth import Account
from services.ingest.bodies import read_json
from services.ingest.commands import RequestSplit, UploadData
from services.ingest.decisions import NAME_TAKEN, decide_split
from services.ingest.files import check_names
from services.ingest.forms import MAX_ID, Bad
from services.ingest.gateway import ACCOUNT, GATEWAY, POSITION, Gateway
from services.ingest.refusals import Refusal, file_refused, invalid, not_found
from services.ingest.sources import MAX_SOURCE_BYTES, check_elements, check_specific
from services.ingest.tabular import UnknownColumn, check_csv
from services.ingest.uploads import Received, check_received, keep, named_blobs, receive_files

SEVERAL_WITHOUT_SPECIFIC = "Submit a specific.py" + " " * 48 + "when submitting several files"


async def list_datasets(request: web.Request) -> web.StreamResponse:
    """GET rawdata/."""
    gateway = request.app[GATEWAY]
    await gateway.reach(request)
    return json_answer([legacy.raw_data(dataset) for dataset in await gateway.database.run(queries.all_datasets)])


async def upload(request: web.Request) -> web.StreamResponse:
    """POST rawdata/: refuse what is wrong, as early as it can be known, then keep the files and claim the name."""
    gateway = request.app[GATEWAY]
    async with receive_files(request, gateway, look=partial(_look, gateway)) as body:
        asked = commands.upload_data(body)
        check_names(asked.files)
        specific = find_specific(asked.files)
        if specific is None:
            check_workflow(asked.workflow_elements)
        await _check_name(gateway, asked.name)
        files, rows = await gateway.compute(lambda: _checked(asked, specific))
        await gateway.compute(lambda: keep(files, gateway.blobs))
        uploaded = Upload(asked, named_blobs(files), rows, request[ACCOUNT].username)
        claim, position = await gateway.accept(
            lambda cursor: claim_upload(gateway, cursor, uploaded), lambda claim: [claim[1]]
        )
    dataset = KnownDataset(claim[0], asked.name, asked.target_column, asked.workflow_elements)
    return json_answer(legacy.raw_data(dataset), status=201, headers={POSITION: position})


async def _look(gateway: Gateway, fields: dict[str, str]) -> None:
    """Refuse a name that is known before megabytes are decoded for it."""
    if "name" in fields:
        await _check_name(gateway, fields["name"].strip())


async def _check_name(gateway: Gateway, name: str) -> None:
    if "\0" not in name and await gateway.database.run(lambda cursor: claims.dataset_name_taken(cursor, name)):
        raise invalid(name=NAME_TAKEN)


@dataclass(frozen=True, slots=True)
class Upload:
    """A dataset whose files are stored."""

    asked: UploadData
    files: tuple[NamedBlob, ...]
    rows: int | None
    uploaded_by: str


def find_specific(names: Collection[str]) -> str | None:
    """Return which file is the specific.py, None if there is none; raises Refusal when it cannot be told."""
    python = sorted(name for name in names if name.endswith(".py"))
    named = [name for name in python if name == SPECIFIC or name.endswith("_datarun.py")]
    candidates = named or python
    if not candidates and len(names) > 1:
        raise Refusal(406, {"error": SEVERAL_WITHOUT_SPECIFIC})
    if len(candidates) > 1:
        raise invalid(files=f"Which file is the specific.py? Found {', '.join(candidates)}.")
    return candidates[0] if candidates else None


def check_workflow(workflow_elements: str) -> None:
    """Raise Refusal unless standard data can have these elements."""
    try:
        check_elements(workflow_elements)
    except Bad as bad:
        raise Refusal(400, {"workflow_elements": bad.body}) from bad


def _checked(asked: UploadData, specific: str | None) -> tuple[dict[str, Received], int | None]:
    files = check_received(asked.files)
    name = specific or next(iter(files))
    try:
        with files[name].open() as content:
            if specific is None:
                return files, check_csv(content, target_column=asked.target_column)
            check_specific(content.read(MAX_SOURCE_BYTES + 1))
    except UnknownColumn as unknown:
        raise Refusal(400, {"target_column": unknown.body}) from unknown
    except Bad as bad:
        raise file_refused(name, bad.body[0]) from bad
    return {SPECIFIC if other == name else other: file for other, file in files.items()}, None


def claim_upload(gateway: Gateway, cursor: Cursor, upload: Upload) -> tuple[int, Queued]:
    """Claim a dataset's name for files that are stored; returns its number. Raises Refusal."""
    asked = upload.asked
    manifest = Dataset(
        raw_data_id=1,
        name=asked.name,
        target_column=asked.target_column,
        workflow_elements=asked.workflow_elements,
        files=upload.files,
    )
    claimed = claims.claim_dataset(cursor, manifest, rows=upload.rows, uploaded_by=upload.uploaded_by)
    if claimed is None:
        raise invalid(name=NAME_TAKEN)
    raw_data_id, at = claimed
    event = DataUploaded(
        raw_data_id=raw_data_id,
        name=asked.name,
        target_column=asked.target_column,
        workflow_elements=asked.workflow_elements,
        files=upload.files,
        uploaded_by=upload.uploaded_by,
        rows=upload.rows,
    )
    return raw_data_id, add(cursor, [gateway.entry(event, at=at)])[0]


async def split(request: web.Request) -> web.StreamResponse:
    """POST rawdata/split/."""
    return await _split(request, commands.request_split(await read_json(request)))


async def custom_split(request: web.Request) -> web.StreamResponse:
    """POST rawdata/customsplit/."""
    return await _split(request, commands.request_custom_split(await read_json(request)))


async def _split(request: web.Request, asked: RequestSplit) -> web.StreamResponse:
    if not 1 <= asked.raw_data_id <= MAX_ID:
        raise not_found()
    gateway, account = request.app[GATEWAY], request[ACCOUNT]
    (task_id, queued), position = await gateway.accept(
        lambda cursor: claim_split(gateway, cursor, asked, account), lambda claim: claim[1]
    )
    # A repeated request wrote nothing, so there is nothing to read.
    return json_answer({"task_id": task_id}, headers={POSITION: position} if queued else None)


def claim_split(gateway: Gateway, cursor: Cursor, asked: RequestSplit, account: Account) -> tuple[str, list[Queued]]:
    """Claim a split and return its task; nothing is queued when the same one was asked for. Raises Refusal."""
    claims.lock_dataset(cursor, asked.raw_data_id)
    dataset = claims.read_dataset(cursor, asked.raw_data_id)
    if dataset is None:
        raise not_found()
    attempt = decide_split(asked, dataset, folds=claims.count_folds(cursor, asked.raw_data_id), only=account.only)
    if attempt is None:
        return dataset.split_task_id or "", []
    event = SplitRequested(
        raw_data_id=dataset.raw_data_id,
        attempt=attempt,
        task_id=str(uuid.uuid4()),
        dataset=dataset.manifest.model_copy(update={"split": None, "split_error": None}),
        plan=asked.plan,
        requested_by=account.username,
    )
    entry = gateway.entry(event)
    queued = claims.record_split(
        cursor,
        dataset.raw_data_id,
        attempt=attempt,
        request=asked.parameters,
        task_id=event.task_id,
        entry=entry,
    )
    return event.task_id, [queued]
