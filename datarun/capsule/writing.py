"""Making a capsule: a fold's records, those of its dataset and packages, and every blob that the fold's events name."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from datarun.blobs import BlobStore
from datarun.capsule import BLOBS, EVENTS, MANIFEST, BadCapsule, File, Manifest
from datarun.envelope import decode
from datarun.errors import Rejected
from datarun.events import Blob, Event, FoldRequested
from datarun.log import EventLog, StoredRecord
from datarun.log.lines import to_line
from datarun.references import blobs_in
from datarun.topics import (
    DATA_EVENTS,
    ENVIRONMENTS,
    FOLD_EVENTS,
    FOLD_REQUESTS_HIGH,
    FOLD_REQUESTS_LOW,
    Catalogue,
    Topic,
)

Told = Callable[[int, int], None]
"""Told how many blobs are written and how many there are."""


class NoSuchFold(BadCapsule):
    """The log knows no request of the fold."""


def export_fold(
    log: EventLog, blobs: BlobStore, fold_id: int, path: Path, *, catalogue: Catalogue, told: Told = lambda _, __: None
) -> Manifest:
    """Write a fold's capsule; the file is there whole or not at all.

    Raises NoSuchFold, LogUnavailable, BlobMissing, BlobCorrupt, OSError.
    """
    records, named = _collect(log, fold_id, catalogue=catalogue)
    lines = b"".join(to_line(record, catalogue=catalogue) for record in records)
    files = [File(name=EVENTS, size=len(lines), sha256=hashlib.sha256(lines).hexdigest())]
    files += [File(name=f"{BLOBS}{blob.sha256}", size=blob.size, sha256=blob.sha256) for blob in named]
    manifest = Manifest(fold_id=fold_id, files=files)
    aside = path.with_name(f"{path.name}.new")
    try:
        with aside.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            _add(archive, MANIFEST, manifest.model_dump_json(indent=1).encode())
            _add(archive, EVENTS, lines)
            for number, blob in enumerate(named, 1):
                _add(archive, f"{BLOBS}{blob.sha256}", blobs.get(blob))
                told(number, len(named))
            archive.close()
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return manifest


def _collect(log: EventLog, fold_id: int, *, catalogue: Catalogue) -> tuple[list[StoredRecord], list[Blob]]:
    key = str(fold_id).encode()
    own = [(one, event) for one, event in _events(log, catalogue, _OF_FOLDS) if one.key == key]
    requests = [event for _, event in own if isinstance(event, FoldRequested)]
    if not requests:
        raise NoSuchFold(f"the log has no request of fold {fold_id}")
    dataset = str(requests[-1].dataset.raw_data_id)
    others = [one for one, _ in _events(log, catalogue, (DATA_EVENTS,)) if one.key == dataset.encode()]
    names = (b"default", dataset.encode())
    others += [one for one, _ in _events(log, catalogue, (ENVIRONMENTS,)) if one.key in names]
    blobs = {blob.sha256: blob for _, event in own for blob in blobs_in(event)}
    records = sorted([one for one, _ in own] + others, key=lambda one: (one.timestamp_ms, one.position))
    return records, [blobs[sha256] for sha256 in sorted(blobs)]


_OF_FOLDS = (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, FOLD_EVENTS)


def _events(
    log: EventLog, catalogue: Catalogue, topics: tuple[Topic, ...]
) -> Iterator[tuple[StoredRecord, Event | None]]:
    """Yield the records of topics that can be decoded."""
    ends = log.end_offsets([catalogue.full_name(topic) for topic in topics])
    for batch in log.read(dict.fromkeys(ends, 0), until_end=True):
        for record in batch:
            with suppress(Rejected):
                yield record, decode(record.value, record.headers)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    # No owner and no time: the same fold gives the same file.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
