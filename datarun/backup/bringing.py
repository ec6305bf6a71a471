"""Bringing a backup back into an installation that has nothing yet: bytes first, then the records that name them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datarun.backup import KEPT, BadBackup, Manifest, Part
from datarun.backup.taking import BLOBS, Told, copy_blob, records_of, verify
from datarun.blobs import LocalBlobs, StreamedBlobs
from datarun.crashes import crash_point
from datarun.errors import LogUnavailable
from datarun.log import REQUEUED, EventLog, Position, StoredRecord, TopicPartition
from datarun.log.admin import create_topics
from datarun.log.brokers import Brokers
from datarun.log.reading import record_at
from datarun.log.restoring import Restoration
from datarun.topics import Catalogue

LEADER_SECONDS = 15.0


class NotEmpty(BadBackup):
    """The installation has records that are not the backup's."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be filled."""

    brokers: Brokers
    log: EventLog
    blobs: StreamedBlobs
    catalogue: Catalogue


@dataclass(slots=True)
class Restored:
    """How many records and blobs were put back, and how many records have another offset than they had."""

    records: int = 0
    blobs: int = 0
    moved: int = 0


def examine(folder: Path, *, catalogue: Catalogue, told: Told) -> tuple[Manifest, list[str]]:
    """Return a complete backup's manifest and its blobs, all of it verified but the blobs' bytes.

    Raises BadBackup, BadArchive, BadLine, OSError.
    """
    manifest = Manifest.load(folder)
    if manifest is None or not manifest.complete:
        raise BadBackup(f"{folder} is no complete backup: `datarun backup` completes it")
    known = {topic.name: topic.partitions for topic in KEPT}
    strange = [part for part in manifest.parts if part.partition >= known.get(part.topic, 0)]
    if strange:
        raise BadBackup(f"{folder} has a topic or partition that the catalogue has not: {strange[0].file}")
    named = verify(manifest, folder, catalogue=catalogue, told=told)
    kept = LocalBlobs(folder / BLOBS)
    lost = [sha256 for sha256 in named if kept.size(sha256) is None and sha256 not in manifest.missing]
    if lost:
        raise BadBackup(f"{folder} has lost {len(lost)} blobs, such as {lost[0]}")
    return manifest, sorted(named - set(manifest.missing))


def restore(folder: Path, target: Target, *, told: Told = lambda _, __, ___: None) -> Restored:
    """Fill an installation; a later call goes on from wherever this one came to.

    Raises NotEmpty, having changed nothing, for one that has other records, and what `examine` raises;
    LogUnavailable, BlobsUnavailable.
    """
    manifest, named = examine(folder, catalogue=target.catalogue, told=told)
    done = Restored()
    there = _counts(target)
    parts = [(part, there.get(_partition(target, part), 0)) for part in manifest.parts]
    for part, count in parts:
        _check_ours(target, part, folder, count)
    restoration = Restoration(target.brokers, catalogue=target.catalogue)
    restoration.open(KEPT)
    kept = LocalBlobs(folder / BLOBS)
    for number, sha256 in enumerate(named, 1):
        size = kept.size(sha256) or 0
        if target.blobs.size(sha256) != size:
            if not copy_blob(kept, target.blobs, sha256, size):
                raise BadBackup(f"blob {sha256} of the backup has decayed")
            done.blobs += 1
        told("restoring blobs", number, len(named))
    total = sum(part.records for part in manifest.parts)
    for part, count in parts:
        for index, record in enumerate(islice(_records(part, folder, target), count, None), count):
            restoration.append(record)
            done.records += 1
            done.moved += record.offset != index
        crash_point("restore.after_part")
        told("restoring records", done.records, total)
    restoration.flush()
    restoration.finish(KEPT)
    create_topics(target.brokers, prefix=target.catalogue.prefix)
    _check_whole(target, manifest)
    return done


def _records(part: Part, folder: Path, target: Target) -> Iterator[StoredRecord]:
    return records_of(part, folder, catalogue=target.catalogue)


def _counts(target: Target) -> dict[TopicPartition, int]:
    """Return how many records each partition has; a topic that was made a moment ago may have no leader yet."""
    names = [target.catalogue.full_name(topic) for topic in KEPT]
    deadline = time.monotonic() + LEADER_SECONDS
    while True:
        try:
            return target.log.end_offsets(names)
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _partition(target: Target, part: Part) -> TopicPartition:
    return TopicPartition(target.catalogue.prefix + part.topic, part.partition)


def _check_ours(target: Target, part: Part, folder: Path, count: int) -> None:
    """Raise NotEmpty unless the partition holds the beginning of the part and nothing else."""
    if count == 0:
        return
    tp = _partition(target, part)
    found = record_at(target.log, Position(tp.topic, tp.partition, count - 1))
    expected = next(islice(_records(part, folder, target), count - 1, None), None)
    if found is None or expected is None or _content(found) != _content(expected):
        raise NotEmpty(f"{tp.topic}[{tp.partition}] has records that are not the backup's")


def _content(record: StoredRecord) -> tuple[object, ...]:
    headers = tuple((name, value) for name, value in record.headers if name != REQUEUED)
    return record.key, record.value, headers


def _check_whole(target: Target, manifest: Manifest) -> None:
    there = _counts(target)
    for part in manifest.parts:
        count = there.get(_partition(target, part), 0)
        if count != part.records:
            raise BadBackup(f"{part.topic}[{part.partition}] has {count} records now, the backup {part.records}")
