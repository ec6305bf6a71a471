"""Reading a request's body: JSON alone, at most 256 MiB however it is packed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from services.ingest.files import MAX_TOGETHER_BYTES, MIB
from services.ingest.refusals import Refusal, detail
from services.ingest.strict_json import parse

MAX_BODY_BYTES = MAX_TOGETHER_BYTES
MOST_BUFFERED_BYTES = 2 * MAX_BODY_BYTES
QUICK_BYTES = 256 * 1024
"""Bodies up to this size are parsed where they are; it takes less than handing them to a thread."""

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_CHUNK_BYTES = MIB


class Buffered:
    """The bytes of all bodies that are in memory, waiting for their ends."""

    def __init__(self, most: int = MOST_BUFFERED_BYTES) -> None:
        self._left = most

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Take a share of the memory, and give it back after the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.take(-share.size)

    def take(self, count: int) -> None:
        """Take some bytes; raises Refusal when there are none left."""
        if count > max(0, self._left):
            raise detail(503, "Too many large requests at once; nothing was recorded.", close=True, Retry_After="5")
        self._left -= count


class Share:
    """What one body has of it."""

    def __init__(self, buffered: Buffered) -> None:
        self._buffered = buffered
        self.size = 0

    def add(self, count: int) -> None:
        """Take some more; raises Refusal."""
        self._buffered.take(count)
        self.size += count


BUFFERED = web.AppKey("buffered", Buffered)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the object in a request's body; raises Refusal."""
    if not request.body_exists and "Content-Type" not in request.headers:
        return {}
    if _is_here(request):
        _check_type(request)
        return parse(request.content.read_nowait())
    body = bytearray()
    with request.app[BUFFERED].share() as share:
        async for chunk in read_chunks(request):
            share.add(len(chunk))
            body += chunk
        return parse(body) if len(body) <= QUICK_BYTES else await asyncio.to_thread(parse, body)


async def read_chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the JSON in a request's body piece by piece, not parsed; raises Refusal."""
    _check_type(request)
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    size = 0
    try:
        async for chunk in _decoded(request):
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            yield chunk
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise detail(400, "The body is not well-formed.", close=True) from error


def is_small(request: web.Request) -> bool:
    """Tell whether a body is known to be small before it is read."""
    length = request.content_length if request.body_exists else 0
    return length is not None and length <= QUICK_BYTES and "Content-Encoding" not in request.headers


def _is_here(request: web.Request) -> bool:
    """Tell whether a small body came with its head, as it is."""
    body = request.content
    is_whole = body.is_eof() and body.exception() is None
    return is_whole and body.total_bytes <= QUICK_BYTES and "Content-Encoding" not in request.headers


def _check_type(request: web.Request) -> None:
    if request.content_type != "application/json" or "Content-Type" not in request.headers:
        shown = request.headers.get("Content-Type", "").partition(";")[0].strip()
        raise detail(415, f'Unsupported media type "{shown}" in request.')


async def _decoded(request: web.Request) -> AsyncIterator[bytes]:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        async for chunk in request.content.iter_any():
            yield chunk
    elif encoding in _WINDOW_BITS:
        async for chunk in _inflated(request, _WINDOW_BITS[encoding]):
            yield chunk
    else:
        raise detail(415, f'Unsupported content encoding "{encoding}".')


async def _inflated(request: web.Request, window_bits: int) -> AsyncIterator[bytes]:
    inflater = zlib.decompressobj(window_bits)
    try:
        async for packed in request.content.iter_any():
            rest = packed
            while rest:
                yield inflater.decompress(rest, _CHUNK_BYTES)
                rest = inflater.unconsumed_tail
        while not inflater.eof:
            chunk = inflater.decompress(b"", _CHUNK_BYTES)
            if not chunk:
                raise detail(400, "The body ends before its content encoding does.")
            yield chunk
    except zlib.error as error:
        raise detail(400, "The body is not in the content encoding it names.") from error


def _too_large() -> Refusal:
    return detail(413, f"Request body exceeds {MAX_BODY_BYTES // MIB} MiB.", close=True)
