"""Collecting blobs that nothing names: old ones that are in no record of the log and in no claim of the gateway.

Who puts a blob or asks for its size keeps it for another day, so an upload that finds its bytes there loses nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from psycopg2.extensions import connection as Connection

from datarun.blobs import CollectedBlobs, KeptBlob
from datarun.log import EventLog
from datarun.references import blobs_named
from datarun.topics import TOPICS, Catalogue

Told = Callable[[int, int], None]
"""Told how many records were read and how many there are to read."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CLAIMS = """
select value from intake.outbox where sent_at is null
union all select files::text from intake.dataset
union all select files::text from intake.submission
union all select train_is || ' ' || test_is from intake.fold"""


def unnamed(
    store: CollectedBlobs, log: EventLog, connection: Connection, *, catalogue: Catalogue, seconds: float, told: Told
) -> list[KeptBlob]:
    """Return the blobs that are so old and that nothing names; raises LogUnavailable, BlobsUnavailable, psycopg2's."""
    oldest = time.time() - seconds
    # In this order: what is claimed or logged after the look at the store is not among the old.
    old = {one.sha256: one for one in store.kept() if one.touched_at < oldest}
    with connection, connection.cursor("datarun_blobs") as cursor:
        cursor.execute(_CLAIMS)
        for (text,) in cursor:
            _forget(old, set(_SHA256.findall(text or "")))
    ends = log.end_offsets([catalogue.full_name(topic) for topic in TOPICS])
    read = 0
    for batch in log.read(dict.fromkeys(ends, 0), until_end=True):
        for record in batch:
            _forget(old, blobs_named(record))
        read += len(batch)
        told(read, sum(ends.values()))
    return [old[sha256] for sha256 in sorted(old)]


def collect(store: CollectedBlobs, found: Sequence[KeptBlob], *, seconds: float) -> list[KeptBlob]:
    """Delete blobs, but for those that somebody has put or asked for since, and return the deleted.

    Raises OSError or BlobsUnavailable.
    """
    return [blob for blob in found if store.forget(blob.sha256, untouched_seconds=seconds)]


def _forget(old: dict[str, KeptBlob], named: set[str]) -> None:
    for sha256 in named & old.keys():
        del old[sha256]
