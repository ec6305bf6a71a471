"""A dataset on its way in: files go to the disk while they come, so that a body of any size takes little memory."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import IO, Any

from aiohttp import web

from datarun.blobs import StreamedBlobs
from datarun.events import Blob, NamedBlob
from datarun.incoming import Incoming
from services.ingest.bodies import BUFFERED, QUICK_BYTES, read_chunks
from services.ingest.extraction import FILES, MAX_REST_BYTES, Extraction
from services.ingest.files import MAX_FILE_BYTES, MAX_TOGETHER_BYTES, MIB, TooLarge, Unpacker, media_type
from services.ingest.forms import Bad
from services.ingest.gateway import Gateway
from services.ingest.refusals import Refusal, file_refused
from services.ingest.strict_json import parse

IN_MEMORY_BYTES = 64 * 1024
"""Files up to this size need no file of their own before they are kept."""


class Received:
    """One file, as far as it has come; what is wrong with it is said when its turn comes."""

    def __init__(self, name: str, together: Together, receive: Callable[[], Incoming]) -> None:
        self._name = name
        self._together = together
        self._receive = receive
        self._unpacker = Unpacker(at_most=MAX_FILE_BYTES)
        self._memory = bytearray()
        self._incoming: Incoming | None = None
        self.wrong: Bad | None = None

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._unpacker.size

    def __len__(self) -> int:
        """Return its size."""
        return self.size

    @property
    def blob(self) -> Blob:
        """What events say of it."""
        sha256 = self._incoming.sha256 if self._incoming else hashlib.sha256(self._memory).hexdigest()
        return Blob(sha256=sha256, size=self.size, media_type=media_type(self._name))

    def feed(self, text: bytes) -> None:
        """Take more of its text; raises Refusal for more bytes than are allowed, OSError for a full disk."""
        if self.wrong is None:
            self._take(lambda: self._unpacker.feed(text))

    def end(self) -> None:
        """Take note of its end, and let go of its descriptor."""
        if self.wrong is None:
            self._take(self._unpacker.end)
        if self._incoming is not None:
            self._incoming.rest()

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it for reading."""
        if self._incoming is None:
            yield io.BytesIO(self._memory)
            return
        with self._incoming.path.open("rb") as file:
            yield file

    def keep(self, blobs: StreamedBlobs) -> None:
        """Store it durably; raises OSError or BlobsUnavailable."""
        if self._incoming is None:
            blobs.put(memoryview(self._memory))
        else:
            blobs.keep(self._incoming)

    def close(self) -> None:
        """Forget it, unless it was kept."""
        if self._incoming is not None:
            self._incoming.close()

    def _take(self, unpack: Callable[[], Iterator[bytes]]) -> None:
        try:
            for chunk in unpack():
                self._together.add(len(chunk))
                self._write(chunk)
        except TooLarge as error:
            message = f"Inflates to more than {MAX_FILE_BYTES // MIB} MiB."
            raise file_refused(self._name, message, status=413) from error
        except Bad as bad:
            self.wrong = bad

    def _write(self, chunk: bytes) -> None:
        if self._incoming is None:
            self._memory += chunk
            if len(self._memory) <= IN_MEMORY_BYTES:
                return
            self._incoming = self._receive()
            chunk, self._memory = bytes(self._memory), bytearray()
        self._incoming.write(chunk)


class Together:
    """The bytes of all files of one body."""

    def __init__(self) -> None:
        self._left = MAX_TOGETHER_BYTES

    def add(self, count: int) -> None:
        """Count some more; raises Refusal."""
        self._left -= count
        if self._left < 0:
            raise Refusal(413, {FILES: [f"Together more than {MAX_TOGETHER_BYTES // MIB} MiB."]})


Look = Callable[[dict[str, str]], Awaitable[None]]
"""Looks at what is known before the files begin; raises Refusal."""


async def look_at_nothing(_: dict[str, str]) -> None:
    """Let the files come, whatever was before them."""


@asynccontextmanager
async def receive_files(
    request: web.Request, gateway: Gateway, *, look: Look, most_rest: int = MAX_REST_BYTES
) -> AsyncIterator[dict[str, Any]]:
    """Read a body, with a Received in the place of each file's text; raises Refusal.

    What is in no file has at most so many bytes, and is in memory until the block ends.
    """
    together = Together()
    received: list[Received] = []

    def make(name: str) -> Received:
        received.append(Received(name, together, gateway.blobs.receive))
        return received[-1]

    extraction = Extraction(make, most_rest=most_rest)
    try:
        with request.app[BUFFERED].share() as share:
            async with aclosing(ahead(_pieces(request, extraction))) as pieces:
                async for chunk in pieces:
                    was_at_files = extraction.is_at_files
                    left = await _feed(gateway, extraction, chunk)
                    if extraction.is_at_files and not was_at_files:
                        await look(extraction.fields)
                        await _feed(gateway, extraction, left)
                    share.add(len(extraction.rest) - share.size)
            yield _with_files(await _parsed(extraction), received)
    finally:
        for file in received:
            file.close()


async def ahead(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield pieces, of which the next comes while one is worked on; two are held at most."""
    coming = asyncio.ensure_future(anext(pieces, None))
    try:
        while (piece := await coming) is not None:
            coming = asyncio.ensure_future(anext(pieces, None))
            yield piece
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await pieces.aclose()


async def _parsed(extraction: Extraction) -> dict[str, Any]:
    rest = extraction.end()
    if len(rest) <= MAX_REST_BYTES:
        return parse(rest, gaps=extraction.gaps)
    return await asyncio.to_thread(parse, rest, gaps=extraction.gaps)


async def _feed(gateway: Gateway, extraction: Extraction, chunk: bytes) -> bytes:
    if len(chunk) <= QUICK_BYTES:
        return extraction.feed(chunk)
    return await gateway.compute(lambda: extraction.feed(chunk))


async def _pieces(request: web.Request, extraction: Extraction) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes until its files begin, then in pieces worth a thread's while."""
    gathered = bytearray()
    async for chunk in read_chunks(request):
        gathered += chunk
        if len(gathered) >= 2 * QUICK_BYTES or not extraction.is_at_files:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _with_files(body: dict[str, Any], received: list[Received]) -> dict[str, Any]:
    files = body.get(FILES)
    if isinstance(files, dict):
        # Every string there was made of a file's number.
        body[FILES] = {name: received[int(value)] if isinstance(value, str) else value for name, value in files.items()}
    return body


def check_received(files: Mapping[str, Any]) -> dict[str, Received]:
    """Return the files of a body; raises Refusal for the first that is none."""
    for name, file in files.items():
        if not isinstance(file, Received):
            raise file_refused(name, "Not a valid string.")
        if file.wrong is not None:
            raise file_refused(name, file.wrong.body[0]) from file.wrong
    return dict(files)


def named_blobs(files: Mapping[str, Received]) -> tuple[NamedBlob, ...]:
    """Return what events say of files, in the order of their names, so that equal files make equal events."""
    return tuple(NamedBlob(name=name, blob=files[name].blob) for name in sorted(files))


def keep(files: Mapping[str, Received], blobs: StreamedBlobs) -> None:
    """Store files durably."""
    for file in files.values():
        file.keep(blobs)
