"""Reading a request's body: JSON alone, at most 256 MiB however it is packed."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from services.ingest.files import MAX_TOGETHER_BYTES, MIB
from services.ingest.refusals import Refusal, detail
from services.ingest.strict_json import parse

MAX_BODY_BYTES = MAX_TOGETHER_BYTES
QUICK_BYTES = 256 * 1024
"""Bodies up to this size are parsed where they are; it takes less than handing them to a thread."""

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_CHUNK_BYTES = MIB


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the object in a request's body; raises Refusal."""
    if not request.body_exists and "Content-Type" not in request.headers:
        return {}
    body = bytearray()
    async for chunk in read_chunks(request):
        body += chunk
    return parse(body) if len(body) <= QUICK_BYTES else await asyncio.to_thread(parse, body)


async def read_chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the JSON in a request's body piece by piece, not parsed; raises Refusal."""
    if request.content_type != "application/json" or "Content-Type" not in request.headers:
        shown = request.headers.get("Content-Type", "").partition(";")[0].strip()
        raise detail(415, f'Unsupported media type "{shown}" in request.')
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
