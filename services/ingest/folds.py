"""Folds: request, list, look at one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.events import Blob, FoldFenced, FoldRequested, NamedBlob
from datarun.intake import cancellations, claims, outbox
from datarun.intake.claims import DatasetClaim, FoldContext, SubmissionClaim, blob_name
from datarun.intake.outbox import Queued
from datarun.readmodel import queries
from datarun.readmodel.queries import KnownFold
from services.ingest import commands, legacy
from services.ingest.answers import ListAnswer, json_answer
from services.ingest.auth import Account
from services.ingest.bodies import QUICK_BYTES, read_json
from services.ingest.commands import RequestFold
from services.ingest.decisions import FoldDecision, decide_fold, unknown_dataset
from services.ingest.files import check_names, decode_files, name_blobs
from services.ingest.forms import MAX_ID, Bad
from services.ingest.gateway import ACCOUNT, GATEWAY, POSITION, Gateway
from services.ingest.indices import check_indices, decode_indices
from services.ingest.portions import portions
from services.ingest.refusals import Refusal, not_found
from services.ingest.sources import check_submission_names

Work = Callable[[Cursor], tuple[FoldRequested, list[Queued]]]
PAGE = 500
LIGHT_PAGE = 5000


@dataclass(frozen=True, slots=True)
class _Stored:
    """A fold whose bytes are durable."""

    asked: RequestFold
    train_is: Blob
    test_is: Blob
    files: tuple[NamedBlob, ...] | None
    files_digest: str | None
    account: Account

    @property
    def digest(self) -> str:
        """What makes two requests the same."""
        asked = self.asked
        parts = (asked.databoard_s_id, asked.raw_data, self.files_digest, self.train_is.sha256, self.test_is.sha256)
        return hashlib.sha256(repr((*parts, asked.priority.value)).encode()).hexdigest()


async def request_fold(request: web.Request) -> web.StreamResponse:
    """POST submissionfold/: refuse what is wrong, store the bytes, claim the attempt under its locks."""
    gateway, account = request.app[GATEWAY], request[ACCOUNT]
    asked = commands.request_fold(await read_json(request))
    event, position = await accept_fold(gateway, asked, account)
    return json_answer(_accepted(asked, event), status=201, headers={POSITION: position})


async def accept_fold(
    gateway: Gateway, asked: RequestFold, account: Account, *, around: Callable[[Work], Work] = lambda work: work
) -> tuple[FoldRequested, str]:
    """Accept a fold and return its request with its Datarun-Position; raises Refusal.

    `around` may add to the transaction that claims it.
    """
    if asked.files is not None:
        check_names(asked.files)
    if asked.raw_data is not None and not 1 <= asked.raw_data <= MAX_ID:
        raise unknown_dataset(asked.raw_data)
    if asked.size <= QUICK_BYTES:
        work: Work = partial(_accept, gateway, asked, account)
    else:
        # Megabytes take their time, and no database connection.
        seen = await gateway.database.run(partial(_read_context, asked))
        stored = await gateway.compute(lambda: _store(gateway, asked, seen, account))
        work = partial(_claim, gateway, stored)
    (event, _), position = await gateway.accept(around(work), lambda claim: claim[1])
    return event, position


def _accept(
    gateway: Gateway, asked: RequestFold, account: Account, cursor: Cursor
) -> tuple[FoldRequested, list[Queued]]:
    # Little is decoded in no time, so one look under the locks is enough.
    seen = _lock_context(asked, cursor)
    return _record(gateway, _store(gateway, asked, seen, account), seen, cursor)


def _read_context(asked: RequestFold, cursor: Cursor) -> FoldContext:
    return claims.read_fold_context(
        cursor, fold_id=asked.databoard_sf_id, submission_id=asked.databoard_s_id, raw_data_id=asked.raw_data
    )


def _store(gateway: Gateway, asked: RequestFold, seen: FoldContext, account: Account) -> _Stored:
    decision = decide_fold(asked, seen, files_digest=None, only=account.only)
    contents, files, digest = None, None, None
    if asked.files is not None:
        check_submission_names(asked.files, decision.dataset.workflow_elements)
        contents = decode_files(asked.files.items())
        files = name_blobs(contents)
        digest = claims.files_digest(files)
        decide_fold(asked, seen, files_digest=digest, only=account.only)
    train_is, test_is = _decode_indices(asked, decision)
    put = gateway.blobs.put
    for content in (contents or {}).values():
        put(memoryview(content))
    return _Stored(asked, put(memoryview(train_is)), put(memoryview(test_is)), files, digest, account)


def _decode_indices(asked: RequestFold, decision: FoldDecision) -> tuple[bytearray, bytearray]:
    split = decision.dataset.manifest().split
    rows = split.train_rows if split else None
    wrong: dict[str, Any] = {}
    decoded = []
    for name, encoded, may_be_empty in (("train_is", asked.train_is, False), ("test_is", asked.test_is, True)):
        try:
            decoded.append(decode_indices(encoded))
            check_indices(decoded[-1], rows=rows, may_be_empty=may_be_empty)
        except Bad as bad:
            wrong[name] = bad.body
    if wrong:
        raise Refusal(400, wrong)
    return decoded[0], decoded[1]


def _claim(gateway: Gateway, stored: _Stored, cursor: Cursor) -> tuple[FoldRequested, list[Queued]]:
    return _record(gateway, stored, _lock_context(stored.asked, cursor), cursor)


def _record(gateway: Gateway, stored: _Stored, seen: FoldContext, cursor: Cursor) -> tuple[FoldRequested, list[Queued]]:
    asked = stored.asked
    decision, files = _decide(cursor, stored, seen)
    event = FoldRequested(
        fold_id=asked.databoard_sf_id,
        attempt=decision.attempt,
        submission_id=asked.databoard_s_id,
        submission_version=decision.submission_version,
        priority=asked.priority,
        dataset=decision.dataset.manifest(),
        files=files,
        train_is=stored.train_is,
        test_is=stored.test_is,
        task_id=str(uuid.uuid4()),
        requested_by=stored.account.username,
    )
    return event, record(gateway, cursor, event, decision.dataset, digest=stored.digest)


def record(
    gateway: Gateway, cursor: Cursor, event: FoldRequested, dataset: DatasetClaim, *, digest: str
) -> list[Queued]:
    """Record an accepted attempt with the fence of the one before; returns what is owed now."""
    waits = dataset.waits_for_split
    event = event.model_copy(update={"request_digest": digest or None})
    entry = gateway.entry(event, waiting_for=dataset.raw_data_id if waits else None)
    queued = claims.record_fold(cursor, event, entry=entry)
    fences = outbox.add(cursor, [gateway.entry(fence) for fence in _fences(cursor, event)])
    return [*fences, queued]


def _fences(cursor: Cursor, event: FoldRequested) -> list[FoldFenced]:
    """Return what ends the attempt before, if it may still wait or run."""
    before = event.attempt - 1
    if before == 0 or not cancellations.may_run(cursor, event.fold_id, before):
        return []
    return [FoldFenced(fold_id=event.fold_id, attempt=before, cause="superseded")]


def _lock_context(asked: RequestFold, cursor: Cursor) -> FoldContext:
    return claims.lock_fold_context(
        cursor,
        fold_id=asked.databoard_sf_id,
        submission_id=asked.databoard_s_id,
        raw_data_id=asked.raw_data,
        may_write_submission=asked.files is not None or asked.force.submission,
    )


def _decide(cursor: Cursor, stored: _Stored, seen: FoldContext) -> tuple[FoldDecision, tuple[NamedBlob, ...]]:
    """Decide under the locks, and record the submission's version if it is new."""
    asked = stored.asked
    decision = decide_fold(asked, seen, files_digest=stored.files_digest, only=stored.account.only)
    known = seen.submission
    files = stored.files if stored.files is not None else known.files if known else ()
    if decision.is_new_version:
        claims.record_submission(
            cursor,
            SubmissionClaim(
                submission_id=asked.databoard_s_id,
                raw_data_id=decision.dataset.raw_data_id,
                version=decision.submission_version,
                files=files,
                files_digest=claims.files_digest(files),
                submitted_by=stored.account.username,
            ),
        )
    return decision, files


def _accepted(asked: RequestFold, event: FoldRequested) -> dict[str, Any]:
    fold = KnownFold(
        fold_id=event.fold_id,
        attempt=event.attempt,
        submission_id=event.submission_id,
        submission_version=event.submission_version,
        raw_data_id=event.dataset.raw_data_id,
        priority=event.priority.value,
        train_is=blob_name(event.train_is),
        test_is=blob_name(event.test_is),
        task_id=event.task_id,
    )
    as_sent: dict[str | None, str] = {fold.train_is: asked.train_is, fold.test_is: asked.test_is}
    return legacy.submission_fold(fold, lambda name: as_sent.get(name))  # noqa: PLW0108 - `get` is overloaded


async def list_folds(request: web.Request) -> web.StreamResponse:
    """GET submissionfold/: every fold that the account may see, with all it has."""
    gateway = request.app[GATEWAY]
    return await _list(request, lambda fold: legacy.submission_fold(fold, gateway.arrays.if_readable), page=PAGE)


async def list_light(request: web.Request) -> web.StreamResponse:
    """GET submissionfold-light/: the same folds, in a word."""
    return await _list(request, legacy.light, page=LIGHT_PAGE)


async def _list(
    request: web.Request, render: Callable[[KnownFold], dict[str, Any]], *, page: int
) -> web.StreamResponse:
    gateway, only = request.app[GATEWAY], request[ACCOUNT].only
    await gateway.reach(request)
    answer = ListAnswer(request)
    after: int | None = 0
    while after is not None:
        found = await gateway.database.run(partial(queries.fold_page, after=after, limit=page, only=only))
        shown = [fold for fold in found.folds if not fold.replaced]
        for some in portions(shown):
            await answer.add(await gateway.compute(lambda: b",".join(orjson.dumps(render(fold)) for fold in some)))  # noqa: B023 - used at once
        after = found.after
    return await answer.finish()


async def show_fold(request: web.Request) -> web.StreamResponse:
    """GET submissionfold/<id>/."""
    gateway, only = request.app[GATEWAY], request[ACCOUNT].only
    fold_id = int(request.match_info["fold_id"])
    if fold_id > MAX_ID:
        raise not_found()
    await gateway.reach(request)
    found = await gateway.database.run(lambda cursor: queries.folds_by_ids(cursor, [fold_id], only=only))
    if not found:
        raise not_found()
    return json_answer(await gateway.compute(lambda: legacy.submission_fold(found[0], gateway.arrays.if_readable)))
