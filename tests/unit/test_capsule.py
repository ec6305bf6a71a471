"""Capsules made by anybody: what is not exactly a capsule is refused, and nothing is written outside its folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datarun.blobs import LocalBlobs
from datarun.capsule import BadCapsule
from datarun.capsule.opening import Capsule, open_capsule
from datarun.capsule.writing import NoSuchFold, export_fold
from datarun.envelope import decode, encode
from datarun.errors import BlobMissing
from datarun.events import Blob, FoldTested, NamedBlob, PackageRequested
from datarun.log import StoredRecord
from datarun.log.memory import MemoryLog
from datarun.references import blobs_in
from datarun.topics import TOPICS, Catalogue
from tests.histories import CONTEXT, dataset, requested, run_event

HERE, THERE = Catalogue("here."), Catalogue("there.")
MOST = 1 << 20


def stored(log: MemoryLog, catalogue: Catalogue) -> list[StoredRecord]:
    """Return every record of a log."""
    ends = log.end_offsets([catalogue.full_name(topic) for topic in TOPICS])
    return [record for batch in log.read(dict.fromkeys(ends, 0), until_end=True) for record in batch]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    """A blob store."""
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def log(blobs: LocalBlobs) -> MemoryLog:
    """A log with a tested fold 4 whose bytes are there, a fold 5 whose bytes are not, and packages."""
    log = MemoryLog(HERE)
    one, two, three = (blobs.put(content) for content in (b"a,b\n1,2\n", b"code", bytes(16)))
    data = dataset().model_copy(update={"files": (NamedBlob(name="data.csv", blob=one),)})
    request = requested(4, dataset=data, files=(NamedBlob(name="c.py", blob=two),), train_is=three, test_is=three)
    tested = run_event(FoldTested, 4).model_copy(update={"full_train_predictions": three, "test_predictions": three})
    package = {"requirement": "x", "requested_by": "somebody"}
    packages = [PackageRequested(environment=name, request_id=name, **package) for name in ("default", "1", "2")]
    for event in (request, tested, requested(5), run_event(FoldTested, 5), *packages):
        log.append(encode(event, catalogue=HERE, context=CONTEXT))
    return log


@pytest.fixture
def file(log: MemoryLog, blobs: LocalBlobs, tmp_path: Path) -> Path:
    """The capsule of fold 4."""
    path = tmp_path / "fold-4.tar"
    export_fold(log, blobs, 4, path, catalogue=HERE)
    return path


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., Capsule]:
    """Open a capsule as another installation would."""

    def unpacked(path: Path, most_bytes: int = MOST) -> Capsule:
        return open_capsule(path, tmp_path / "unpacked", catalogue=THERE, most_bytes=most_bytes)

    return unpacked


def test_a_capsule_holds_its_fold_and_nothing_of_others(
    file: Path, log: MemoryLog, unpack: Callable[..., Capsule]
) -> None:
    """Records and bytes come out as they went in; other folds and other datasets' packages are not there."""
    capsule = unpack(file)
    events = [decode(one.value, one.headers) for one in stored(capsule.log, THERE)]
    expected = [decode(one.value, one.headers) for one in stored(log, HERE) if one.key in (b"4", b"default", b"1")]
    assert sorted(map(str, events)) == sorted(map(str, expected))
    assert capsule.fold_id == 4
    assert {capsule.blobs.get(blob) for event in events for blob in blobs_in(event)} == {
        b"a,b\n1,2\n",
        b"code",
        bytes(16),
    }


def test_a_fold_that_is_not_whole_leaves_no_file(log: MemoryLog, blobs: LocalBlobs, tmp_path: Path) -> None:
    """A missing blob, or a fold nobody requested, is told; no half a capsule stays."""
    with pytest.raises(BlobMissing):
        export_fold(log, blobs, 5, tmp_path / "x.tar", catalogue=HERE)
    with pytest.raises(NoSuchFold):
        export_fold(log, blobs, 77, tmp_path / "x.tar", catalogue=HERE)
    assert not list(tmp_path.glob("x.tar*"))


def test_any_cut_and_any_changed_byte_that_counts_is_refused(
    file: Path, unpack: Callable[..., Capsule], tmp_path: Path
) -> None:
    """A capsule that was cut, or whose contents changed, is never run as if it were whole."""
    whole = file.read_bytes()
    end = len(whole.rstrip(b"\x00"))
    broken = tmp_path / "broken.tar"
    for length in range(0, end - 16, max(1, end // 40)):
        broken.write_bytes(whole[:length])
        with pytest.raises(BadCapsule):
            unpack(broken)
    for place in (whole.index(b"a,b\n1"), whole.index(b"code"), whole.index(b"FoldTested"), 150):
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(BadCapsule):
            unpack(broken)


def forged(entries: list[tuple[tarfile.TarInfo, bytes]], fold_id: int = 4, **manifest: Any) -> bytes:
    """Return a tar with a manifest that agrees with its entries, as far as nothing else is said."""
    files = [
        {"name": one.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for one, content in entries
    ]
    said = {"format": "datarun.fold-capsule.v1", "fold_id": fold_id, "files": files} | manifest
    text = json.dumps(said).encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for entry, content in [(plain("manifest.json", text), text), *entries]:
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def plain(name: str, content: bytes, **fields: Any) -> tarfile.TarInfo:
    """Return a tar's entry."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


SHA = hashlib.sha256(b"x").hexdigest()
EVENTS = (plain("events.jsonl", b""), b"")
LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}
HUGE = [{"name": "events.jsonl", "size": 0, "sha256": SHA}, {"name": f"blobs/{SHA}", "size": 1 << 39, "sha256": SHA}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 10_240,
        b"PK\x03\x04",
        forged([]),
        forged([(plain("../../evil", b"x"), b"x")]),
        forged([EVENTS, (plain("/tmp/evil", b"x"), b"x")]),
        forged([EVENTS, (plain(f"blobs/../{SHA}", b"x"), b"x")]),
        forged([EVENTS, (plain(f"blobs/{SHA}", b"x"), b"x"), (plain(f"blobs/{SHA}", b"x"), b"x")]),
        forged([EVENTS, (plain(f"blobs/{'0' * 64}", b"x"), b"x")]),
        forged([EVENTS, (plain(f"blobs/{SHA}", b"", **LINK), b"")]),
        forged([EVENTS, (plain("long/" * 60, b"x"), b"x")]),
        forged([EVENTS], files=HUGE),
        forged([EVENTS], files=[{"name": "events.jsonl", "size": -1, "sha256": SHA}]),
        forged([EVENTS], format="datarun.fold-capsule.v2"),
        forged([EVENTS], more=1),
        forged([(plain("events.jsonl", b"x\n"), b"x\n")]),
        forged([(plain("events.jsonl", line := b'{"topic":"no-topic","partition":0,"offset":0}\n'), line)]),
    ],
)
def test_what_is_no_capsule_is_refused(content: bytes, tmp_path: Path, unpack: Callable[..., Capsule]) -> None:
    """Paths, links, repeated and misnamed files, sizes beyond bounds and other formats: an error, and no file."""
    path = tmp_path / "forged.tar"
    path.write_bytes(content)
    with pytest.raises(BadCapsule):
        unpack(path)
    outside = {one.relative_to(tmp_path).parts[0] for one in tmp_path.rglob("*")}
    assert outside <= {"forged.tar", "unpacked"}
    assert not Path("/tmp/evil").exists()


def test_a_capsule_larger_than_allowed_is_not_read(file: Path, unpack: Callable[..., Capsule], tmp_path: Path) -> None:
    """The bound is on what the manifest says, and what is read is never more than that."""
    with pytest.raises(BadCapsule, match="are allowed"):
        unpack(file, 20)
    assert not (tmp_path / "unpacked").exists()


def test_blobs_of_an_event_are_found_wherever_they_are() -> None:
    """Files of the dataset, of the submission, indices and predictions are all named."""
    names = [blob.size for blob in blobs_in(requested(4))]
    assert sorted(names) == [1, 2, 3, 4]
    assert list(blobs_in(Blob(sha256=SHA, size=1))) == [Blob(sha256=SHA, size=1)]
