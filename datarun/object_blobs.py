"""Blobs in an object store: s3://, gs://, az:// and whatever else obstore knows; durable when the store has answered.

Objects have no time that can be set, so who asks for an old blob leaves an empty object beside it, newer than it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datarun.blobs import CHUNK_BYTES, OCTETS, TOUCH_SECONDS, KeptBlob, key_of, verified
from datarun.errors import BlobMissing, BlobsUnavailable, DatarunError
from datarun.events import Blob
from datarun.incoming import Incoming

TOUCHED, ASIDE = "touched", "aside"
"""Where those empty objects are, and blobs while they are being deleted."""
_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})")


class ObjectBlobs:
    """Blobs in an object store."""

    def __init__(self, url: str) -> None:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - loaded only where an object store is used
        from obstore.store import from_url  # noqa: PLC0415

        self._url = url
        try:
            self._store = from_url(url)
        except (BaseError, ValueError) as error:
            raise DatarunError(f"{url} is not the URL of a blob store: {error}") from error

    def put(self, content: bytes | memoryview, *, media_type: str = OCTETS) -> Blob:
        """Store bytes durably and return what an event may say of them; raises BlobsUnavailable."""
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        blob = Blob(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type=media_type)
        # Known and being deleted at this moment, it is put once more.
        for _ in range(2):
            with self._answering(), suppress(AlreadyExistsError):
                self._store.put(key_of(blob.sha256), bytes(content), mode="create")
                return blob
            if self.size(blob.sha256) is not None:
                return blob
        raise BlobsUnavailable(f"blob {blob.sha256} comes and goes at {self._url}")

    def get(self, blob: Blob) -> bytes:
        """Return the bytes of a blob; raises BlobMissing, BlobCorrupt or BlobsUnavailable."""
        with self._answering():
            content = bytes(self._store.get(key_of(blob.sha256)).bytes())
        return verified(content, blob)

    def size(self, sha256: str) -> int | None:
        """Return how many bytes a blob has, None for one that is not there; raises BlobsUnavailable.

        Who asks may be about to name it: from now on it counts as new again.
        """
        found = self._head(key_of(sha256))
        if found is None:
            return None
        size, modified = found
        if modified < time.time() - TOUCH_SECONDS:
            self._touch(sha256)
            # A collection deletes, then looks for the touch: one of the two sees the other.
            return None if self._head(key_of(sha256)) is None else size
        return size

    def read(self, sha256: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from start to before stop; raises BlobMissing or BlobsUnavailable."""
        if start >= stop:
            return
        with self._answering():
            found = self._store.get(key_of(sha256), options={"range": (start, stop)})
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def receive(self) -> Incoming:
        """Open a place for bytes on their way in, on this machine; raises OSError."""
        return Incoming(Path(tempfile.gettempdir()))

    def keep(self, incoming: Incoming) -> bool:
        """Store what has come durably under its sha256; False when that was known. Raises BlobsUnavailable."""
        if self.size(incoming.sha256) == incoming.size:
            return False
        incoming.sync()
        with self._answering():
            # Piece by piece where it is large; it replaces at most its equal.
            self._store.put(key_of(incoming.sha256), incoming.path)
        return True

    def kept(self) -> Iterator[KeptBlob]:
        """Yield every blob of the store; raises BlobsUnavailable."""
        self._bring_back()
        touched = {sha256: at for sha256, _, at in self._listed(f"{TOUCHED}/")}
        for sha256, size, modified in self._listed(""):
            yield KeptBlob(sha256, size, max(modified, touched.get(sha256, modified)))

    def forget(self, sha256: str, *, untouched_seconds: float) -> bool:
        """Delete a blob that nobody has put or asked for so long; False for another one. Raises BlobsUnavailable."""
        newest = time.time() - untouched_seconds
        key, aside = key_of(sha256), f"{ASIDE}/{key_of(sha256)}"
        found = self._head(key)
        if found is None or found[1] >= newest or self._touched_at(sha256) >= newest:
            return False
        with self._answering():
            self._store.copy(key, aside)
            self._store.delete(key)
            is_wanted = self._touched_at(sha256) >= newest
            if is_wanted:
                self._store.copy(aside, key)
            self._store.delete(aside)
        if not is_wanted:
            with suppress(BlobMissing), self._answering():
                self._store.delete(f"{TOUCHED}/{key}")
        return not is_wanted

    def _bring_back(self) -> None:
        """Undo what a killed collection had begun."""
        for sha256, _, _ in self._listed(f"{ASIDE}/"):
            key = key_of(sha256)
            with self._answering():
                if self._head(key) is None:
                    self._store.copy(f"{ASIDE}/{key}", key)
                self._store.delete(f"{ASIDE}/{key}")

    def _touch(self, sha256: str) -> None:
        from obstore.exceptions import PermissionDeniedError  # noqa: PLC0415

        if self._touched_at(sha256) < time.time() - TOUCH_SECONDS:
            # Who may only read names nothing new.
            with self._answering(), suppress(PermissionDeniedError):
                self._store.put(f"{TOUCHED}/{key_of(sha256)}", b"")

    def _touched_at(self, sha256: str) -> float:
        found = self._head(f"{TOUCHED}/{key_of(sha256)}")
        return found[1] if found else 0.0

    def _head(self, key: str) -> tuple[int, float] | None:
        try:
            with self._answering():
                found = self._store.head(key)
        except BlobMissing:
            return None
        return found["size"], found["last_modified"].timestamp()

    def _listed(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        with self._answering():
            for page in self._store.list(prefix or None):
                for one in page:
                    named = _KEY.fullmatch(one["path"].removeprefix(prefix))
                    if named:
                        yield named[1], one["size"], one["last_modified"].timestamp()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            yield
        except FileNotFoundError as error:
            raise BlobMissing(f"a blob is not in {self._url}: {error}") from error
        except BaseError as error:
            raise BlobsUnavailable(f"the store at {self._url} does not answer: {error}") from error
