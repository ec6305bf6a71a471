"""The blob store of a process that shares no disk with it: through the gateway, with a cache of this host's own."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests
import structlog

from datarun.blob_cache import BlobBusy, BlobCache
from datarun.blobs import OCTETS, BlobStore, open_blobs, verified
from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob
from datarun.gateway_client import GatewayClient, GatewayRefused, GatewayUnavailable
from datarun.settings import Settings

GATEWAY = "gateway:"
"""The URL of the store that is the gateway, where there could be another one."""
CACHE_MIB = 4096
"""What a runner keeps of the blobs it read, unless it is told otherwise."""
CHUNK_BYTES = 1 << 16
"""What is lost at most when a download is cut."""
IDLE_SECONDS = (10.0, 60.0)
"""For a connection, and between two bytes."""
PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Before another try; as many in a row may come to nothing."""
_PARTIAL, _NOT_FOUND, _UNSATISFIABLE = 206, 404, 416

log = structlog.get_logger(__name__)


def blobs_of(settings: Settings, *, cache_folder: Path, cache_mib: int) -> BlobStore:
    """Open the store an installation names, or its gateway's when it names none, or `gateway:`, or http://…/blobs.

    Raises DatarunError when it names no gateway either.
    """
    url = settings.blobs_url or GATEWAY
    if url != GATEWAY and urlsplit(url).scheme not in ("http", "https"):
        return open_blobs(url)
    if url != GATEWAY:
        settings = settings.model_copy(update={"gateway_url": url.rstrip("/").removesuffix("/blobs")})
    return HttpBlobs(GatewayClient.of(settings), BlobCache(cache_folder, capacity_bytes=cache_mib << 20))


class HttpBlobs:
    """Blobs through the gateway; safe to use from several threads."""

    def __init__(self, client: GatewayClient, cache: BlobCache) -> None:
        self._client = client
        self._cache = cache

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes, unless they are known, and return what an event may say of them once they are durable.

        Raises GatewayUnavailable when the gateway does not answer for long, GatewayRefused when it will not have them.
        """
        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        self._persistently(lambda: self._put(blob, content))
        return blob

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob, from the cache if they are there.

        Raises BlobMissing, BlobCorrupt, GatewayUnavailable when nothing comes for long, GatewayRefused.
        """
        try:
            content = self._cache.get(blob)
            return self._fetched(blob) if content is None else content
        except (OSError, BlobBusy) as error:
            # A full or broken disk costs time, never a fold.
            log.warning("blob_cache.failed", sha256=blob.sha256, reason=str(error))
            return self._downloaded(blob, io.BytesIO())

    def check(self) -> None:
        """Raise GatewayRefused for a token that opens nothing here, GatewayUnavailable when there is no answer."""
        self._persistently(lambda: self._is_known(Blob(sha256=hashlib.sha256().hexdigest(), size=0)))

    def _fetched(self, blob: Blob) -> bytes:
        with self._cache.fetching(blob) as file:
            content = self._cache.get(blob)  # another process may have fetched it while this one waited
            if content is not None:
                self._cache.forget(blob)
                return content
            try:
                content = self._downloaded(blob, file)
            except (BlobCorrupt, BlobMissing):
                self._cache.forget(blob)
                raise
            self._cache.keep(blob)
            return content

    def _downloaded(self, blob: Blob, file: IO[bytes]) -> bytes:
        """Bring a file to the whole blob and return its bytes; what was wrong in it is fetched afresh, once."""
        had_some = file.seek(0, io.SEEK_END) > 0
        self._fill(blob, file)
        try:
            return verified(_content(file), blob)
        except BlobCorrupt:
            if not had_some:
                raise
        _empty(file)
        self._fill(blob, file)
        return verified(_content(file), blob)

    def _fill(self, blob: Blob, file: IO[bytes]) -> None:
        """Append what the file lacks; every byte that comes gives new patience."""
        while (had := _size(file, at_most=blob.size)) < blob.size:
            self._persistently(partial(self._append, blob, file), has_progressed=partial(_is_longer, file, had))

    def _append(self, blob: Blob, file: IO[bytes]) -> None:
        size = _size(file, at_most=blob.size)
        with self._answer(blob, size) as answer:
            if answer.status_code != _PARTIAL:
                size = _empty(file)
            for chunk in _chunks(answer):
                size += file.write(chunk)
                if size > blob.size:
                    raise BlobCorrupt(f"blob {blob.sha256} is longer at the gateway than {blob.size} bytes")
        if size < blob.size:
            raise GatewayUnavailable(f"only {size} of {blob.size} bytes of blob {blob.sha256} came")

    def _answer(self, blob: Blob, start: int) -> requests.Response:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        path = f"/blobs/{blob.sha256}"
        try:
            answer = self._client.request("GET", path, headers=headers, stream=True, timeout=IDLE_SECONDS)
        except GatewayRefused as error:
            if error.status == _NOT_FOUND:
                raise BlobMissing(f"blob {blob.sha256} is not at the gateway") from error
            if error.status == _UNSATISFIABLE:
                raise BlobCorrupt(f"blob {blob.sha256} is shorter at the gateway than {blob.size} bytes") from error
            raise
        expected = f"bytes {start}-{blob.size - 1}/{blob.size}"
        if answer.status_code == _PARTIAL and answer.headers.get("Content-Range") != expected:
            # Also where an answer is cut among its headers.
            answer.close()
            raise GatewayUnavailable(f"the gateway did not send {expected} of blob {blob.sha256}")
        return answer

    def _put(self, blob: Blob, content: bytes | memoryview) -> None:
        if not self._is_known(blob):
            headers = {"Content-Type": OCTETS}
            path = f"/blobs/{blob.sha256}"
            self._client.request("PUT", path, data=bytes(content), headers=headers, timeout=IDLE_SECONDS)

    def _is_known(self, blob: Blob) -> bool:
        try:
            known = self._client.request("HEAD", f"/blobs/{blob.sha256}", timeout=IDLE_SECONDS)
        except GatewayRefused as error:
            if error.status != _NOT_FOUND:
                raise
            return False
        return known.headers.get("Content-Length") == str(blob.size)

    def _persistently(
        self, attempt: Callable[[], object], *, has_progressed: Callable[[], bool] = lambda: False
    ) -> None:
        """Try until it works, or as often as there are pauses without it having come further."""
        for pause in PAUSES_SECONDS:
            try:
                attempt()
            except GatewayUnavailable as error:
                log.warning("blobs.again", reason=str(error))
                if has_progressed():
                    return
                time.sleep(pause)
            else:
                return
        attempt()


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(CHUNK_BYTES)
    except requests.RequestException as error:
        raise GatewayUnavailable(f"the gateway's answer broke off: {error}") from error


def _size(file: IO[bytes], *, at_most: int | None = None) -> int:
    size = file.seek(0, io.SEEK_END)
    if at_most is not None and size > at_most:
        return _empty(file)
    return size


def _is_longer(file: IO[bytes], size: int) -> bool:
    return _size(file) > size


def _empty(file: IO[bytes]) -> int:
    file.truncate(0)
    return file.seek(0)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
