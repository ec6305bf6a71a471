"""One suite for every blob store."""

import os
import threading

import pytest

from datarun.blobs import LocalBlobs, ObjectBlobs, open_blobs
from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob


@pytest.fixture(params=["local", "object"])
def store(request, tmp_path):
    """Return each kind of store in turn, empty."""
    return LocalBlobs(tmp_path / "blobs") if request.param == "local" else ObjectBlobs("memory:///")


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
