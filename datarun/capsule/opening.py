"""Opening a capsule that anybody may have made: no name of it becomes a path, nothing larger than said is read."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from datarun.blobs import CHUNK_BYTES, LocalBlobs
from datarun.capsule import EVENTS, MANIFEST, MOST_EVENTS_BYTES, MOST_MANIFEST_BYTES, BadCapsule, File, Manifest
from datarun.errors import Misrouted
from datarun.log import Record
from datarun.log.lines import BadLine, from_line
from datarun.log.memory import MemoryLog
from datarun.topics import Catalogue


@dataclass(frozen=True, slots=True)
class Capsule:
    """What a capsule held: a log of its own, and the blobs in a folder of this program's."""

    fold_id: int
    log: MemoryLog
    blobs: LocalBlobs


def open_capsule(path: Path, folder: Path, *, catalogue: Catalogue, most_bytes: int) -> Capsule:
    """Return what a capsule holds, verified, its blobs below `folder`; raises BadCapsule, OSError."""
    blobs = LocalBlobs(folder)
    lines = b""
    with path.open("rb") as file:
        manifest = _manifest(file, most_bytes=most_bytes)
        for wanted in manifest.files:
            if _header(file, wanted.name) != wanted.size:
                raise BadCapsule(f"{wanted.name} is not as large as the manifest says")
            if wanted.name == EVENTS:
                lines = b"".join(_content(file, wanted.size))
                _check(hashlib.sha256(lines).hexdigest(), wanted)
            else:
                _keep(file, wanted, blobs)
    return Capsule(manifest.fold_id, _log(lines, catalogue), blobs)


def _manifest(file: IO[bytes], *, most_bytes: int) -> Manifest:
    size = _header(file, MANIFEST)
    if size > MOST_MANIFEST_BYTES:
        raise BadCapsule("the manifest is too large")
    try:
        manifest = Manifest.model_validate_json(b"".join(_content(file, size)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise BadCapsule(f"the manifest: /{'/'.join(map(str, first['loc']))}: {first['msg']}") from error
    names = [one.name for one in manifest.files]
    if len(set(names)) < len(names) or names[0] != EVENTS or manifest.files[0].size > MOST_EVENTS_BYTES:
        raise BadCapsule("the manifest does not begin with events of a bounded size, or names a file twice")
    total = sum(one.size for one in manifest.files)
    if total > most_bytes:
        raise BadCapsule(f"it holds {total:,} bytes, and {most_bytes:,} are allowed")
    return manifest


def _header(file: IO[bytes], name: str) -> int:
    """Return the size of the next file, which must be a plain one of this name."""
    try:
        # Only this block: what tar knows of links, long names and sparse files is never looked at.
        entry = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise BadCapsule(f"it is no tar, or ends before {name}: {error}") from error
    if entry.name != name or entry.type != tarfile.REGTYPE or entry.size < 0:
        raise BadCapsule(f"{name} is not where the manifest says")
    return entry.size


def _content(file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise BadCapsule("the file was cut")
        left -= len(chunk)
        yield chunk
    file.read(-size % tarfile.BLOCKSIZE)


def _keep(file: IO[bytes], wanted: File, blobs: LocalBlobs) -> None:
    with blobs.receive() as incoming:
        for chunk in _content(file, wanted.size):
            incoming.write(chunk)
        _check(incoming.sha256, wanted)
        if wanted.name.rpartition("/")[2] != wanted.sha256:
            raise BadCapsule(f"{wanted.name} is not named by its sha256")
        blobs.keep(incoming)


def _check(sha256: str, wanted: File) -> None:
    if sha256 != wanted.sha256:
        raise BadCapsule(f"{wanted.name} has other bytes than the manifest says")


def _log(lines: bytes, catalogue: Catalogue) -> MemoryLog:
    log = MemoryLog(catalogue)
    try:
        for line in lines.splitlines():
            record = from_line(line, catalogue=catalogue)
            headers = tuple((name, value) for name, value in record.headers if value is not None)
            catalogue.topic(record.topic)
            log.append(Record(record.topic, record.key or b"", record.value or b"", headers))
    except (BadLine, Misrouted) as error:
        raise BadCapsule(f"its events: {error}") from error
    return log
