"""Taking a backup: what came since the last one is appended, then all of it is read again and its blobs are fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from datarun.backup import KEPT, BadBackup, Manifest, Part
from datarun.blobs import CHUNK_BYTES, LocalBlobs, StreamedBlobs
from datarun.crashes import crash_point
from datarun.envelope import decode
from datarun.errors import BlobMissing, Rejected
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.log.archive import ArchiveWriter, read_lines
from datarun.log.lines import from_line, to_line
from datarun.references import blobs_in
from datarun.topics import Catalogue

RECORDS_A_FRAME = 20_000
BYTES_A_FRAME = 32 << 20
BLOBS = "blobs"

Told = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and how much there is to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a backup is taken of, and what it is called."""

    log: EventLog
    blobs: StreamedBlobs
    catalogue: Catalogue
    name: str


def take(source: Source, folder: Path, *, told: Told = lambda _, __, ___: None) -> Manifest:
    """Bring a folder to all that the log holds now, verified; a later call goes on from wherever this one came to.

    Raises BadBackup for a folder of another installation, LogUnavailable, BlobsUnavailable, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest.load(folder) or Manifest(source=source.name)
    if manifest.source != source.name:
        raise BadBackup(f"{folder} is a backup of {manifest.source}, not of {source.name}")
    manifest.complete = False
    _append_new(source, manifest, folder, told)
    named = verify(manifest, folder, catalogue=source.catalogue, told=told, sealed=False)
    kept = LocalBlobs(folder / BLOBS)
    manifest.missing = _fetch(source.blobs, kept, sorted(named), told)
    manifest.blobs = len(named) - len(manifest.missing)
    manifest.complete = True
    manifest.save(folder)
    return manifest


def verify(manifest: Manifest, folder: Path, *, catalogue: Catalogue, told: Told, sealed: bool = True) -> set[str]:
    """Read a backup's records and return the blobs they name; of a sealed one the files' sha256 must be as it says.

    Raises BadBackup, BadArchive, BadLine, OSError.
    """
    named: set[str] = set()
    done, total = 0, sum(part.records for part in manifest.parts)
    for part in manifest.parts:
        sha256 = _sha256(folder / part.file, part.length)
        if sealed and sha256 != part.sha256:
            raise BadBackup(f"{folder / part.file} has other bytes than the manifest says")
        part.sha256 = sha256
        records, before = 0, -1
        for record in records_of(part, folder, catalogue=catalogue):
            if record.partition != part.partition or not before < record.offset < part.next_offset:
                raise BadBackup(f"{folder / part.file} holds a record of another place")
            records, before = records + 1, record.offset
            with suppress(Rejected):
                named |= {blob.sha256 for blob in blobs_in(decode(record.value, record.headers))}
        if records != part.records:
            raise BadBackup(f"{folder / part.file} holds {records} records, the manifest says {part.records}")
        done += records
        told("verifying", done, total)
    return named


def records_of(part: Part, folder: Path, *, catalogue: Catalogue) -> Iterator[StoredRecord]:
    """Yield a partition's records; raises BadArchive, BadLine, BadBackup, OSError."""
    if not part.length:
        return
    for line in read_lines(folder / part.file):
        record = from_line(line, catalogue=catalogue)
        if record.topic != catalogue.prefix + part.topic:
            raise BadBackup(f"{folder / part.file} holds a record of another topic")
        yield record


def _append_new(source: Source, manifest: Manifest, folder: Path, told: Told) -> None:
    catalogue = source.catalogue
    names = [catalogue.full_name(topic) for topic in KEPT]
    starts, ends = source.log.start_offsets(names), source.log.end_offsets(names)
    parts = {TopicPartition(catalogue.prefix + part.topic, part.partition): part for part in manifest.parts}
    for tp in ends:
        parts.setdefault(tp, Part(topic=tp.topic.removeprefix(catalogue.prefix), partition=tp.partition))
    manifest.parts = [parts[tp] for tp in sorted(parts)]
    left = {tp: max(starts[tp], parts[tp].next_offset) for tp in ends if parts[tp].next_offset < ends[tp]}
    done, total = 0, sum(ends[tp] - start for tp, start in left.items())
    with ExitStack() as stack:
        files = {tp: stack.enter_context(_opened(parts[tp], folder)) for tp in left}
        for batch in _frames(source.log, left, ends):
            for tp, records in batch.items():
                part = parts[tp]
                part.length = files[tp].append(to_line(record, catalogue=catalogue) for record in records)
                part.next_offset, part.records = records[-1].offset + 1, part.records + len(records)
                done += len(records)
            crash_point("backup.before_save")
            manifest.save(folder)
            told("reading", done, total)
    for tp in left:
        # A hole at the end has no record.
        parts[tp].next_offset = ends[tp]


def _opened(part: Part, folder: Path) -> ArchiveWriter:
    path = folder / part.file
    path.parent.mkdir(parents=True, exist_ok=True)
    return ArchiveWriter(path, length=part.length)


def _frames(
    log: EventLog, start: dict[TopicPartition, int], ends: dict[TopicPartition, int]
) -> Iterator[dict[TopicPartition, list[StoredRecord]]]:
    """Yield what is new, thousands of records at a time, by partition."""
    found: dict[TopicPartition, list[StoredRecord]] = {}
    count = size = 0
    with closing(log.read(start, until_end=True)) as batches:  # type: ignore[type-var]
        for batch in batches:
            for record in batch:
                tp = TopicPartition(record.topic, record.partition)
                if record.offset < ends[tp]:
                    found.setdefault(tp, []).append(record)
                    count, size = count + 1, size + len(record.value or b"")
            if count >= RECORDS_A_FRAME or size >= BYTES_A_FRAME:
                yield found
                found, count, size = {}, 0, 0
    if found:
        yield found


def _fetch(store: StreamedBlobs, kept: LocalBlobs, named: list[str], told: Told) -> list[str]:
    """Fetch blobs that the backup lacks and return those that the store lacks; raises BlobsUnavailable, OSError."""
    missing = []
    for number, sha256 in enumerate(named, 1):
        size = store.size(sha256)
        if size is None:
            if kept.size(sha256) is None:
                missing.append(sha256)
        elif kept.size(sha256) != size and not copy_blob(store, kept, sha256, size):
            missing.append(sha256)
        told("fetching blobs", number, len(named))
    return missing


def copy_blob(source: StreamedBlobs, target: StreamedBlobs, sha256: str, size: int) -> bool:
    """Copy a blob piece by piece, verified; False when its bytes are gone or decayed. Raises BlobsUnavailable."""
    with target.receive() as incoming:
        try:
            for chunk in source.read(sha256, 0, size):
                incoming.write(chunk)
        except BlobMissing:
            return False
        if incoming.sha256 != sha256:
            return False
        target.keep(incoming)
    return True


def _sha256(path: Path, length: int) -> str:
    digest, left = hashlib.sha256(), length
    if length:
        with path.open("rb") as file:
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                digest.update(chunk)
                left -= len(chunk)
            if left or file.read(1):
                raise BadBackup(f"{path} is not as long as the manifest says")
    return digest.hexdigest()
