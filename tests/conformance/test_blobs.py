"""One suite for every blob store."""

import hashlib
import os
import threading
import time

import pytest

from datarun.blobs import LocalBlobs, key_of, open_blobs, open_collected
from datarun.errors import BlobCorrupt, BlobMissing, BlobsUnavailable, DatarunError
from datarun.events import Blob
from datarun.object_blobs import ObjectBlobs
from tests.blob_gateways import blob_gateway

STREAMED = {"local": lambda folder: LocalBlobs(folder / "blobs"), "object": lambda _: ObjectBlobs("memory:///")}


@pytest.fixture(params=[*STREAMED, "gateway"])
def store(request, tmp_path):
    """Return each kind of store in turn, empty."""
    if request.param in STREAMED:
        yield STREAMED[request.param](tmp_path)
        return
    kafka, postgres_url = map(request.getfixturevalue, ("kafka", "postgres_url"))
    with blob_gateway(tmp_path, kafka, postgres_url) as gateway:
        yield gateway.store(tmp_path / "cache")


@pytest.fixture(params=STREAMED)
def streamed(request, tmp_path):
    """Return each kind of store that moves blobs in pieces, empty."""
    return STREAMED[request.param](tmp_path)


def test_bytes_come_back(store):
    """What was put is got, under its sha256."""
    blob = store.put(b"hello", media_type="text/plain")
    assert blob == Blob(
        sha256="2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", size=5, media_type="text/plain"
    )
    assert store.get(blob) == b"hello"


def test_putting_again_changes_nothing(store):
    """The same bytes are one blob."""
    assert store.put(b"x" * 1000) == store.put(memoryview(b"x" * 1000))


def test_an_empty_blob_is_a_blob(store):
    """Zero bytes have a sha256 too."""
    assert store.get(store.put(b"")) == b""


def test_a_missing_blob_says_so(store):
    """A blob nobody put is BlobMissing."""
    with pytest.raises(BlobMissing):
        store.get(Blob(sha256="ab" * 32, size=1))


def test_other_bytes_under_a_name_are_refused(tmp_path):
    """A file that was changed under its name is never handed out."""
    store = LocalBlobs(tmp_path)
    blob = store.put(b"right")
    store.path(blob).write_bytes(b"wrong")
    with pytest.raises(BlobCorrupt):
        store.get(blob)


def test_a_half_written_blob_is_never_visible(tmp_path, monkeypatch):
    """A crash before the rename leaves no blob, and a later put works."""

    def crash(_descriptor):
        raise OSError(28, "No space left on device")

    store = LocalBlobs(tmp_path)
    store.put(b"warm up the folders")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(OSError, match="No space"):
            store.put(b"content")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".new-")]
    assert store.get(store.put(b"content")) == b"content"


def test_many_writers_of_one_blob_agree(tmp_path):
    """Threads that put the same bytes at once all get the same whole blob."""
    store = LocalBlobs(tmp_path)
    results = []
    threads = [threading.Thread(target=lambda: results.append(store.put(b"y" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert store.get(results[0]) == b"y" * 100_000


def test_a_url_opens_its_store(tmp_path):
    """A path, a file URL and an object store's URL each open the right kind."""
    assert isinstance(open_blobs(str(tmp_path)), LocalBlobs)
    assert isinstance(open_blobs(tmp_path.as_uri()), LocalBlobs)
    assert isinstance(open_blobs("memory:///"), ObjectBlobs)
    for nonsense in ("nonsense://x", "s3:"):
        with pytest.raises(DatarunError, match="not the URL of a blob store"):
            open_blobs(nonsense)


def receive(store, *chunks):
    """Let chunks come in, and keep them; returns their sha256 and whether they were new."""
    with store.receive() as incoming:
        for chunk in chunks:
            incoming.write(chunk)
        return incoming.sha256, store.keep(incoming)


def test_what_comes_in_pieces_is_a_blob_like_any_other(streamed):
    """Its sha256 is that of the whole, and the second time it is known."""
    whole = hashlib.sha256(b"hello").hexdigest()
    assert receive(streamed, b"hel", b"lo") == (whole, True)
    assert receive(streamed, b"hello") == (whole, False)
    assert streamed.get(Blob(sha256=whole, size=5)) == b"hello"
    assert receive(streamed) == (hashlib.sha256(b"").hexdigest(), True)


def test_any_part_of_a_blob_can_be_read(streamed):
    """Parts put together are the whole, the empty part is empty."""
    content = os.urandom(3_000_000)
    sha256 = streamed.put(content).sha256
    assert streamed.size(sha256) == len(content)
    for start, stop in ((0, len(content)), (1, 2), (17, 2_500_000), (5, 5)):
        assert b"".join(streamed.read(sha256, start, stop)) == content[start:stop]


def test_what_is_not_there_has_no_size_and_cannot_be_read(streamed):
    """A size tells whether a blob is known."""
    assert streamed.size("ab" * 32) is None
    with pytest.raises(BlobMissing):
        list(streamed.read("ab" * 32, 0, 1))


def test_what_is_not_kept_leaves_nothing(tmp_path):
    """Neither a blob nor a file aside; what a killed process left goes after a day."""
    store = LocalBlobs(tmp_path)
    with store.receive() as incoming:
        incoming.write(b"half")
        left = incoming.path
        assert left.exists()
    old = left.with_name(left.name + "old")
    old.write_bytes(b"left behind")
    os.utime(old, (time.time() - 90_000,) * 2)
    store.receive().close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_decayed_blob_is_healed_by_whoever_brings_it_again(tmp_path):
    """The bytes that came in are verified, those in the store may not be."""
    store = LocalBlobs(tmp_path)
    blob = store.put(b"right")
    store.path(blob).write_bytes(b"wrong")
    assert receive(store, b"right") == (blob.sha256, False)
    assert store.get(blob) == b"right"


def test_a_store_that_does_not_answer_says_so():
    """It is tried again later: nothing is said to be missing."""
    store = ObjectBlobs("http://127.0.0.1:9/bucket")
    for attempt in (lambda: store.get(Blob(sha256="ab" * 32, size=1)), lambda: store.size("ab" * 32)):
        with pytest.raises(BlobsUnavailable):
            attempt()


DAY = 86_400.0
COLLECTED = {"local": LocalBlobs, "object": lambda folder: ObjectBlobs(folder.as_uri())}


@pytest.fixture(params=COLLECTED)
def collected(request, tmp_path):
    """Return each kind of store that can be collected, empty; an object store's files can be made older."""
    return COLLECTED[request.param](tmp_path)


def age(folder, seconds):
    """Let everything in a store be older."""
    for path in folder.rglob("*"):
        if path.is_file():
            modified = path.stat().st_mtime - seconds
            os.utime(path, (modified, modified))


def kept(store):
    """Return the blobs of a store with their sizes."""
    return {one.sha256: one.size for one in store.kept()}


def test_old_blobs_are_forgotten_and_young_ones_stay(collected, tmp_path):
    """Listed with its age, deleted when it is old; what is not there is no blob."""
    blob = collected.put(b"content")
    (tmp_path / "other").write_text("no blob")
    assert kept(collected) == {blob.sha256: 7}
    assert not collected.forget(blob.sha256, untouched_seconds=DAY)
    age(tmp_path, DAY + 60)
    assert next(collected.kept()).touched_at < time.time() - DAY
    assert collected.forget(blob.sha256, untouched_seconds=DAY)
    assert kept(collected) == {}
    assert collected.size(blob.sha256) is None
    assert not collected.forget(blob.sha256, untouched_seconds=DAY)
    assert collected.put(b"content") == blob


@pytest.mark.parametrize("how", ["put", "asked for", "received"])
def test_who_wants_an_old_blob_keeps_it(collected, tmp_path, how):
    """It counts as new, whether it is listed or about to be deleted; and is old again in a day."""
    blob = collected.put(b"content")
    age(tmp_path, DAY + 60)
    match how:
        case "put":
            collected.put(b"content")
        case "asked for":
            assert collected.size(blob.sha256) == 7
        case "received":
            with collected.receive() as incoming:
                incoming.write(b"content")
                collected.keep(incoming)
    assert next(collected.kept()).touched_at > time.time() - DAY
    assert not collected.forget(blob.sha256, untouched_seconds=DAY)
    assert collected.get(blob) == b"content"
    age(tmp_path, DAY + 60)
    assert collected.forget(blob.sha256, untouched_seconds=DAY)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and blob.sha256 in path.name] == []


def test_a_collection_that_was_killed_is_undone(tmp_path):
    """Killed with a blob put aside, by the next look; it is a blob again, or never stopped being one."""
    store = ObjectBlobs(tmp_path.as_uri())
    gone, there = store.put(b"gone"), store.put(b"there")
    for blob, is_deleted in ((gone, True), (there, False)):
        path = tmp_path / key_of(blob.sha256)
        aside = tmp_path / "aside" / key_of(blob.sha256)
        aside.parent.mkdir(parents=True)
        aside.write_bytes(path.read_bytes())
        if is_deleted:
            path.unlink()
    assert kept(store) == {gone.sha256: 4, there.sha256: 5}
    assert store.get(gone) == b"gone"
    assert list((tmp_path / "aside").rglob("*/*/*")) == []


@pytest.mark.parametrize("moment", ["before the deletion", "after it"])
def test_a_touch_between_look_and_deletion_wins(tmp_path, moment):
    """Who asks while a blob is being deleted is told that it is there and it is, or that it is not and puts it."""
    store, other = ObjectBlobs(tmp_path.as_uri()), ObjectBlobs(tmp_path.as_uri())
    blob = store.put(b"content")
    age(tmp_path, DAY + 60)
    asked = []

    class Between:
        """The store itself, with somebody else asking at one moment of a collection."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def delete(self, paths):
            if not asked and moment == "before the deletion":
                asked.append(other.size(blob.sha256))
            self._inner.delete(paths)
            if not asked:
                asked.append(other.size(blob.sha256))

    store._store = Between(store._store)
    was_deleted = store.forget(blob.sha256, untouched_seconds=DAY)
    assert (asked, was_deleted) == (([7], False) if moment == "before the deletion" else ([None], True))
    assert (other.size(blob.sha256) is None) == was_deleted
    assert other.put(b"content") == blob
    assert other.get(blob) == b"content"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/bucket", "https://store.example.org/x", "ftp://x/y"])
def test_a_store_that_cannot_be_listed_is_not_collected(url):
    """It is said, before anything is read."""
    with pytest.raises(DatarunError, match=r"blobs are collected of file, s3, .* alone"):
        open_collected(url)
