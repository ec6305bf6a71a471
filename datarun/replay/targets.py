"""Where replayed records go. A target knows how to go on after a kill: it forgets or finds what it had half done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datarun.errors import DatarunError
from datarun.log import EventLog, Position, StoredRecord, TopicPartition
from datarun.log.archive import ArchiveWriter
from datarun.log.copies import REPLAYED, came_from, copy_of
from datarun.log.lines import to_line
from datarun.log.parquet import TableWriter, is_whole
from datarun.projection.offsets import Offsets
from datarun.topics import Catalogue, Kind, Topic

Written = Mapping[str, int]


class IntoItself(DatarunError):
    """Requests are not replayed into the queue they are in: `datarun recall` asks for folds again."""


class Target(Protocol):
    """Takes records in the order of their partitions."""

    def resume(self, written: Written) -> None:
        """Go on after what a progress says was written; nothing was yet for an empty one."""
        ...

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Take records and return how many were new there."""
        ...

    def reach(self, reached: Offsets) -> bool:
        """Know that nothing else before these offsets is meant; tell whether it can be gone on from there."""
        ...

    def finish(self) -> None:
        """Know that there is no more."""
        ...

    def written(self) -> Written:
        """Return what to go on from."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class FileTarget:
    """A file of compressed lines."""

    def __init__(self, path: Path, *, catalogue: Catalogue) -> None:
        self._path = path
        self._catalogue = catalogue
        self._file: ArchiveWriter | None = None

    def resume(self, written: Written) -> None:
        """Cut the file to the length it had; raises BadArchive, OSError."""
        self._file = ArchiveWriter(self._path, length=written.get("length", 0))

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Append records as one frame."""
        if self._file is not None and records:
            self._file.append(to_line(record, catalogue=self._catalogue) for record in records)
        return len(records)

    def reach(self, reached: Offsets) -> bool:  # noqa: ARG002 - the progress knows
        """Have all that was written."""
        return True

    def finish(self) -> None:
        """Nothing is left to do."""

    def written(self) -> Written:
        """Return the file's length."""
        return {"length": self._file.length if self._file else 0}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class TableTarget:
    """A Parquet table, which has its name once it is whole; row groups are gone on from."""

    def __init__(self, path: Path, *, catalogue: Catalogue) -> None:
        self._path = path
        self._catalogue = catalogue
        self._table: TableWriter | None = None
        self._written: Written = {}

    def resume(self, written: Written) -> None:
        """Begin, or cut the table to what it had; raises BadTable, OSError."""
        if written and is_whole(self._path):
            return
        self._table = TableWriter(self._path, catalogue=self._catalogue, written=written)
        self._written = self._table.commit() or {}

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Append rows."""
        if self._table is None:
            return 0
        self._table.append(records)
        return len(records)

    def reach(self, reached: Offsets) -> bool:  # noqa: ARG002 - the progress knows
        """Write a row group if there are enough rows for one; fewer are read again after a kill."""
        written = self._table.commit() if self._table is not None else None
        self._written = written or self._written
        return written is not None

    def finish(self) -> None:
        """Give the file its name, if it has not."""
        if self._table is not None:
            self._table.finish()

    def written(self) -> Written:
        """Return what the table has."""
        return self._written

    def close(self) -> None:
        """Let go of a table that is not whole; the same replay goes on with it."""
        if self._table is not None:
            self._table.close()


@dataclass(frozen=True, slots=True)
class StandardOutput:
    """Lines for another program; nothing is kept to go on from."""

    catalogue: Catalogue

    def resume(self, written: Written) -> None:
        """Begin."""

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Print records."""
        sys.stdout.buffer.write(b"".join(to_line(record, catalogue=self.catalogue) for record in records))
        sys.stdout.buffer.flush()
        return len(records)

    def reach(self, reached: Offsets) -> bool:  # noqa: ARG002 - the progress knows
        """Have all that was written."""
        return True

    def finish(self) -> None:
        """Nothing is left to do."""

    def written(self) -> Written:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Leave the output open: others print too."""


@dataclass(frozen=True, slots=True)
class Place:
    """An installation's topics on a cluster, which is known by its id however it is reached."""

    cluster: str
    catalogue: Catalogue


class TopicTarget:
    """The topics of the same names under another prefix, or on another cluster."""

    def __init__(self, log: EventLog, *, source: Place, target: Place, topics: Sequence[Topic]) -> None:
        """Copy into `target`, which `log` writes to; raises IntoItself."""
        if source == target and any(topic.kind is Kind.QUEUE for topic in topics):
            raise IntoItself
        self._log = log
        self._source = source
        self._target = target
        self._names = [target.catalogue.full_name(topic) for topic in topics]
        self._copied: set[Position] = set()

    def resume(self, written: Written) -> None:
        """Find out what was copied after the progress was saved; raises LogUnavailable."""
        if not written:
            return
        start = {_partition_of(name): offset for name, offset in written.items()}
        with closing(self._log.read(start, until_end=True)) as batches:  # type: ignore[type-var]
            for batch in batches:
                self._copied.update(filter(None, map(self._origin, batch)))

    def write(self, records: Sequence[StoredRecord]) -> int:
        """Append copies and wait until the log has them; raises LogUnavailable."""
        copies = []
        for record in records:
            topic = self._source.catalogue.topic(record.topic)
            name = self._target.catalogue.full_name(topic)
            if record.position in self._copied or came_from(record, cluster=self._target.cluster, topic=name):
                continue
            copies.append(copy_of(record, cluster=self._source.cluster, topic=topic, name=name))
        for future in [self._log.append(copy) for copy in copies]:
            future.result()
        return len(copies)

    def reach(self, reached: Offsets) -> bool:  # noqa: ARG002 - the progress knows
        """Have all that was written."""
        return True

    def finish(self) -> None:
        """Nothing is left to do."""

    def written(self) -> Written:
        """Return where the copies of what comes next will be."""
        return {f"{tp.topic}:{tp.partition}": end for tp, end in self._log.end_offsets(self._names).items()}

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _origin(self, record: StoredRecord) -> Position | None:
        """Return the record of the source that this is a copy of."""
        origins = [value for name, value in record.headers if name == REPLAYED and value]
        cluster, _, place = (origins[-1] if origins else b"").decode("utf-8", "replace").rpartition("/")
        parts = place.split(":")
        if cluster != self._source.cluster or len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):  # noqa: PLR2004
            return None
        return Position(parts[0], int(parts[1]), int(parts[2]))


def _partition_of(name: str) -> TopicPartition:
    topic, _, partition = name.rpartition(":")
    return TopicPartition(topic, int(partition))
