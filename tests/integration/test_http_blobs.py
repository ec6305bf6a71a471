"""A blob store through a real gateway: its cache, downloads that are cut, several processes on one host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datarun import blob_cache, http_blobs
from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob
from datarun.gateway_client import GatewayRefused, GatewayUnavailable
from datarun.http_blobs import HttpBlobs, blobs_of
from datarun.settings import load_settings
from tests.blob_gateways import BlobGateway, blob_gateway, wire
from tests.gateways import wait_until

CONTENT = os.urandom(3_000_000)
FETCH = """
import sys
from pathlib import Path
from datarun.blob_cache import BlobCache
from datarun.events import Blob
from datarun.gateway_client import GatewayClient
from datarun.http_blobs import HttpBlobs
url, token, folder, sha256, size = sys.argv[1:]
store = HttpBlobs(GatewayClient(url, token), BlobCache(Path(folder), capacity_bytes=1 << 30))
print(len(store.get(Blob(sha256=sha256, size=int(size)))))
"""


@pytest.fixture
def gateway(kafka: str, postgres_url: str, tmp_path: Path) -> Iterator[BlobGateway]:
    """Run a gateway."""
    with blob_gateway(tmp_path, kafka, postgres_url) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store give up soon."""
    monkeypatch.setattr(http_blobs, "PAUSES_SECONDS", (0.01, 0.01))


def put(gateway: BlobGateway, content: bytes = CONTENT) -> Blob:
    """Store bytes at the gateway."""
    return Blob(sha256=gateway.put(content), size=len(content))


def cached(folder: Path) -> list[Path]:
    """Return the files of a cache."""
    return [path for path in folder.glob("*/*") if path.is_file()]


def test_what_one_host_puts_another_gets(gateway: BlobGateway, tmp_path: Path) -> None:
    """Bytes go through the gateway alone; known ones are not sent again; missing ones are said to be missing."""
    with wire(gateway.url) as proxy:
        here, there = gateway.store(tmp_path / "here", url=proxy.url), gateway.store(tmp_path / "there")
        here.check()
        blob = here.put(memoryview(CONTENT), media_type="text/csv")
        assert blob.media_type == "text/csv"
        assert there.get(blob) == CONTENT
        assert there.get(here.put(b"")) == b""
        stored = {path: path.stat().st_mtime_ns for path in gateway.files()}
        assert here.put(CONTENT) == Blob(sha256=blob.sha256, size=blob.size)
        assert {path: path.stat().st_mtime_ns for path in gateway.files()} == stored
    with pytest.raises(BlobMissing):
        there.get(Blob(sha256="ab" * 32, size=1))


def test_a_cached_blob_needs_no_gateway_and_is_verified(gateway: BlobGateway, tmp_path: Path) -> None:
    """The second reading comes from the disk; bytes that decayed there are fetched again; nobody else may read them."""
    blob = put(gateway)
    with wire(gateway.url) as proxy:
        store = gateway.store(tmp_path / "cache", url=proxy.url)
        assert store.get(blob) == store.get(blob) == CONTENT
        assert proxy.made == 1
        (file,) = cached(tmp_path / "cache")
        file.write_bytes(b"x" + CONTENT[1:])
        assert store.get(blob) == CONTENT
    assert file.read_bytes() == CONTENT
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_download_that_is_cut_goes_on_where_it_was(gateway: BlobGateway, tmp_path: Path) -> None:
    """Three cuts cost three more connections and no byte twice."""
    blob = put(gateway)
    with wire(gateway.url) as proxy:
        proxy.cuts = [1_000_000, 100, 1_200_000]
        store = gateway.store(tmp_path / "cache", url=proxy.url)
        assert store.get(blob) == CONTENT
        assert proxy.made == 4
        assert proxy.passed < len(CONTENT) + 4 * (http_blobs.CHUNK_BYTES + 1000)


@pytest.mark.usefixtures("impatient")
def test_a_gateway_that_gives_nothing_is_given_up(gateway: BlobGateway, tmp_path: Path) -> None:
    """After some tries without a byte the fold is somebody else's; what had come is not fetched again."""
    blob = put(gateway)
    with wire(gateway.url) as proxy:
        proxy.cuts = [1_500_000, 0, 0, 0, 0]
        store = gateway.store(tmp_path / "cache", url=proxy.url)
        with pytest.raises(GatewayUnavailable):
            store.get(blob)
        (partial,) = cached(tmp_path / "cache")
        had = partial.stat().st_size
        assert 1_300_000 < had < 1_500_000
        proxy.cuts.clear()
        proxy.passed = 0
        assert store.get(blob) == CONTENT
        assert proxy.passed < len(CONTENT) - had + 1000
        proxy.cuts = [0] * 9
        with pytest.raises(GatewayUnavailable):
            gateway.store(tmp_path / "cache", url=proxy.url).put(b"to nobody")


def test_a_half_that_decayed_is_fetched_afresh(gateway: BlobGateway, tmp_path: Path) -> None:
    """What is not the beginning of the blob costs one more download, and is never handed out."""
    blob = put(gateway)
    folder = tmp_path / "cache"
    for left in (os.urandom(1000), os.urandom(len(CONTENT)), os.urandom(len(CONTENT) + 7)):
        store = gateway.store(folder)
        partial = folder / blob.sha256[:2] / f"{blob.sha256}.partial"
        partial.parent.mkdir(exist_ok=True)
        partial.write_bytes(left)
        assert store.get(blob) == CONTENT
        assert [path.name for path in cached(folder)] == [blob.sha256]
        cached(folder)[0].unlink()


@pytest.mark.usefixtures("impatient")
def test_a_blob_that_is_another_at_the_gateway_is_refused(gateway: BlobGateway, tmp_path: Path) -> None:
    """Other bytes, or another length than the event says, are corrupt, and nothing of them stays."""
    blob = put(gateway)
    (stored,) = gateway.files()
    store = gateway.store(tmp_path / "cache")
    for content in (b"x" + CONTENT[1:], CONTENT + b"x", CONTENT[:-1]):
        stored.write_bytes(content)
        with pytest.raises((BlobCorrupt, GatewayUnavailable)):
            store.get(blob)
        for size in (blob.size - 1, blob.size + 1):
            with pytest.raises((BlobCorrupt, GatewayUnavailable)):
                store.get(Blob(sha256=blob.sha256, size=size))
        assert not [path for path in cached(tmp_path / "cache") if path.suffix != ".partial"]


def test_the_cache_keeps_what_was_used_last(gateway: BlobGateway, tmp_path: Path) -> None:
    """It never holds more than its bound; what is larger than half of it is handed on and not kept."""
    folder, capacity = tmp_path / "cache", 1_000_000
    store = gateway.store(folder, capacity_bytes=capacity)
    blobs = [put(gateway, os.urandom(100_000)) for _ in range(20)]
    for age, blob in enumerate(blobs):
        store.get(blob)
        os.utime(folder / blob.sha256[:2] / blob.sha256, (time.time() - 3600 + age,) * 2)
        store.get(blobs[0])
        assert sum(path.stat().st_size for path in cached(folder)) <= capacity
    kept = {path.name for path in cached(folder)}
    assert blobs[0].sha256 in kept
    assert blobs[1].sha256 not in kept
    assert blobs[-1].sha256 in kept
    assert store.get(put(gateway)) == CONTENT
    assert {path.name for path in cached(folder)} == kept


def test_several_processes_fetch_a_blob_once(gateway: BlobGateway, tmp_path: Path) -> None:
    """Who comes second waits for the first; one that is killed leaves its half to the next."""
    blob, folder = put(gateway), tmp_path / "cache"
    with wire(gateway.url) as proxy:
        proxy.stalls = [1_000_000]
        argv = [sys.executable, "-c", FETCH, proxy.url, gateway.token, str(folder), blob.sha256, str(blob.size)]
        first = subprocess.Popen(argv)
        wait_until(lambda: [path for path in cached(folder) if path.stat().st_size > 800_000])
        others = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(3)]
        time.sleep(1)
        assert [other.poll() for other in others] == [None] * 3
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert [other.communicate(timeout=30)[0] for other in others] == [b"3000000\n"] * 3
        assert proxy.made == 2
        assert proxy.passed < len(CONTENT) + 2 * (http_blobs.CHUNK_BYTES + 200_000)
    assert [path.name for path in cached(folder)] == [blob.sha256]


def test_a_holder_that_hangs_and_a_disk_that_fails_cost_no_blob(
    gateway: BlobGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are then fetched past the cache."""
    blob = put(gateway)
    store = gateway.store(tmp_path / "cache")
    monkeypatch.setattr(blob_cache, "WAIT_SECONDS", 0.2)
    holder = blob_cache.BlobCache(tmp_path / "cache", capacity_bytes=1 << 30)
    with holder.fetching(blob):
        assert store.get(blob) == CONTENT
    (tmp_path / "cache" / blob.sha256[:2] / f"{blob.sha256}.partial").unlink()
    (tmp_path / "cache" / blob.sha256[:2]).rmdir()
    (tmp_path / "cache" / blob.sha256[:2]).write_text("in the way")
    assert store.get(blob) == CONTENT


def test_threads_share_a_store(gateway: BlobGateway, tmp_path: Path) -> None:
    """Eight threads get the same blob by one download."""
    blob, results = put(gateway), []
    with wire(gateway.url) as proxy:
        store = gateway.store(tmp_path / "cache", url=proxy.url)
        threads = [threading.Thread(target=lambda: results.append(store.get(blob))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert proxy.made == 1
    assert results == [CONTENT] * 8


def test_settings_say_which_store_it_is(gateway: BlobGateway, tmp_path: Path) -> None:
    """Without --blobs, with gateway: or with the gateway's own URL the bytes go through it; a wrong token is told."""
    secret = tmp_path / "token"
    secret.write_text(gateway.token + "\n")
    given = {"kafka": "k:1", "token_file": secret}
    ways = (
        {"gateway_url": gateway.url},
        {"gateway_url": gateway.url, "blobs": "gateway:"},
        {"blobs": f"{gateway.url}/blobs"},
    )
    for way in ways:
        store = blobs_of(load_settings(tmp_path, **given, **way), cache_folder=tmp_path / "cache", cache_mib=1)
        assert isinstance(store, HttpBlobs)
        store.check()
    secret.write_text("dr_wrong")
    store = blobs_of(load_settings(tmp_path, **given, **ways[0]), cache_folder=tmp_path / "cache", cache_mib=1)
    with pytest.raises(GatewayRefused):
        store.check()
