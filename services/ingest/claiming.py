"""The claim of a fold: look, store the bytes, decide under the locks, record; all but the look in one transaction."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from psycopg2.extensions import cursor as Cursor

from datarun.events import Blob, FoldFenced, FoldRequested, NamedBlob
from datarun.intake import cancellations, claims, fold_claims
from datarun.intake.claims import DatasetClaim, FoldContext, SubmissionClaim
from datarun.intake.outbox import Entry, Queued
from services.ingest import uploads
from services.ingest.auth import Account
from services.ingest.commands import RequestFold
from services.ingest.decisions import FoldDecision, decide_fold
from services.ingest.files import decode_files, name_blobs
from services.ingest.forms import Bad
from services.ingest.gateway import Gateway
from services.ingest.indices import check_indices, decode_indices
from services.ingest.refusals import Refusal
from services.ingest.sources import check_submission_names

Claimed = tuple[FoldRequested, list[Queued]]
Work = Callable[[Cursor], Claimed]


@dataclass(frozen=True, slots=True)
class Stored:
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


def claim_at_once(gateway: Gateway, asked: RequestFold, account: Account, cursor: Cursor) -> Claimed:
    """Claim a small fold; raises Refusal."""
    # Little is decoded in no time, so one look under the locks is enough.
    seen = _lock_context(asked, cursor)
    return _record(gateway, store(gateway, asked, seen, account), seen, cursor)


def look(asked: RequestFold, cursor: Cursor) -> FoldContext:
    """Return what is known of a fold now."""
    return claims.read_fold_context(
        cursor, fold_id=asked.databoard_sf_id, submission_id=asked.databoard_s_id, raw_data_id=asked.raw_data
    )


def store(gateway: Gateway, asked: RequestFold, seen: FoldContext, account: Account) -> Stored:
    """Make a fold's bytes durable unless it is to be refused; raises Refusal, BlobsUnavailable or OSError."""
    decision = decide_fold(asked, seen, files_digest=None, only=account.only)
    files, digest, keep_files = None, None, None
    if asked.files is not None:
        check_submission_names(asked.files, decision.dataset.workflow_elements)
        files, keep_files = _read_files(gateway, asked.files)
        digest = claims.files_digest(files)
        decide_fold(asked, seen, files_digest=digest, only=account.only)
    train_is, test_is = _read_indices(gateway, asked, decision)
    if keep_files is not None:
        keep_files()
    return Stored(
        asked,
        _put_indices(gateway, asked.train_is, train_is),
        _put_indices(gateway, asked.test_is, test_is),
        files,
        digest,
        account,
    )


def _read_files(gateway: Gateway, files: Mapping[str, Any]) -> tuple[tuple[NamedBlob, ...], Callable[[], None]]:
    """Return what events say of files, and what makes them durable; raises Refusal."""
    if any(isinstance(file, uploads.Received) for file in files.values()):
        received = uploads.check_received(files)
        return uploads.named_blobs(received), partial(uploads.keep, received, gateway.blobs)
    contents = decode_files(files.items())
    return name_blobs(contents), partial(_put_all, gateway, contents)


def _put_all(gateway: Gateway, contents: Mapping[str, bytearray]) -> None:
    for content in contents.values():
        gateway.blobs.put(memoryview(content))


def _read_indices(gateway: Gateway, asked: RequestFold, decision: FoldDecision) -> list[Blob | bytearray]:
    """Return train and test indices, stored ones by their blob; raises Refusal."""
    rows = decision.dataset.known_train_rows
    wrong: dict[str, Any] = {}
    read: list[Blob | bytearray] = []
    for name, encoded, may_be_empty in (("train_is", asked.train_is, False), ("test_is", asked.test_is, True)):
        known = gateway.known_indices.find(encoded, rows=rows)
        if known is not None:
            read.append(known)
            continue
        try:
            content = decode_indices(encoded)
            check_indices(content, rows=rows, may_be_empty=may_be_empty)
            read.append(content)
        except Bad as bad:
            wrong[name] = bad.body
    if wrong:
        raise Refusal(400, wrong)
    return read


def _put_indices(gateway: Gateway, encoded: str, content: Blob | bytearray) -> Blob:
    if isinstance(content, Blob):
        return content
    blob = gateway.blobs.put(memoryview(content))
    gateway.known_indices.keep(encoded, content, blob)
    return blob


def claim(gateway: Gateway, stored: Stored, cursor: Cursor) -> Claimed:
    """Claim a fold whose bytes are durable; raises Refusal."""
    return _record(gateway, stored, _lock_context(stored.asked, cursor), cursor)


def _record(gateway: Gateway, stored: Stored, seen: FoldContext, cursor: Cursor) -> Claimed:
    decision, files = _decide(cursor, stored, seen)
    event = requested(stored, decision, files)
    return event, record(gateway, cursor, event, decision.dataset, at=seen.at)


def requested(
    stored: Stored, decision: FoldDecision, files: tuple[NamedBlob, ...], *, task_id: str | None = None
) -> FoldRequested:
    """Return the event of an accepted attempt."""
    asked = stored.asked
    return FoldRequested(
        fold_id=asked.databoard_sf_id,
        attempt=decision.attempt,
        submission_id=asked.databoard_s_id,
        submission_version=decision.submission_version,
        priority=asked.priority,
        dataset=decision.dataset.manifest,
        files=files,
        train_is=stored.train_is,
        test_is=stored.test_is,
        task_id=str(uuid.uuid4()) if task_id is None else task_id,
        requested_by=stored.account.username,
        request_digest=stored.digest,
    )


def record(
    gateway: Gateway, cursor: Cursor, event: FoldRequested, dataset: DatasetClaim, *, at: datetime
) -> list[Queued]:
    """Record an accepted attempt with the fence of the one before; returns what is owed now."""
    entries = owed(gateway, cursor, event, dataset, at=at)
    queued, *fences = fold_claims.record_folds(cursor, [(event, at)], entries)
    return [*fences, queued]


def owed(gateway: Gateway, cursor: Cursor, event: FoldRequested, dataset: DatasetClaim, *, at: datetime) -> list[Entry]:
    """Return what the outbox owes for an accepted attempt: its event, and the fence of the one before."""
    entry = gateway.entry(event, at=at, waiting_for=dataset.raw_data_id if dataset.waits_for_split else None)
    return [entry, *(gateway.entry(fence) for fence in _fences(cursor, event))]


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


def _decide(cursor: Cursor, stored: Stored, seen: FoldContext) -> tuple[FoldDecision, tuple[NamedBlob, ...]]:
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
            at=seen.at,
        )
    return decision, files
