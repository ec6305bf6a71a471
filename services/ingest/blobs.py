"""Blobs for programs on other hosts: bytes by their sha256, in whole or by range, in and out piece by piece.

Nothing but the sha256 comes from the client, so there is no other file to ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from datarun.blobs import CHUNK_BYTES, OCTETS
from datarun.errors import BlobMissing
from datarun.incoming import Incoming
from services.ingest.answers import UNDER_WAY, json_answer
from services.ingest.files import MIB
from services.ingest.gateway import GATEWAY
from services.ingest.ranges import Unsatisfiable, one_range
from services.ingest.refusals import Refusal, detail, not_found

PATH = "/blobs/{sha256:[0-9a-f]{64}}"
IDLE_SECONDS = 60.0
"""How long a client may neither send nor take a byte."""


async def send(request: web.Request) -> web.StreamResponse:
    """GET and HEAD: the bytes, or the one range of them that is asked for; who gets them verifies them."""
    sha256, blobs = request.match_info["sha256"], request.app[GATEWAY].blobs
    size = await asyncio.to_thread(blobs.size, sha256)
    if size is None:
        raise not_found()
    etag = f'"{sha256}"'
    answer = web.StreamResponse(headers={"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": OCTETS})
    if _has_already(request, etag):
        answer.set_status(304)
        await answer.prepare(request)
        return answer
    asked = _asked(request, size, etag)
    start, stop = asked or (0, size)
    if asked:
        answer.set_status(206)
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    answer.content_length = stop - start
    request[UNDER_WAY] = True
    await answer.prepare(request)
    if request.method != "HEAD":
        await _pour(blobs.read(sha256, start, stop), answer, stop - start)
        await answer.write_eof()
    return answer


async def store(request: web.Request) -> web.StreamResponse:
    """PUT: store the body, durably before the answer; 201 for new bytes, 200 for known ones. Raises Refusal."""
    gateway, sha256 = request.app[GATEWAY], request.match_info["sha256"]
    if (request.content_length or 0) > gateway.max_blob_bytes:
        raise _too_large(gateway.max_blob_bytes)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise detail(415, "A blob is sent as it is, without a content encoding.", close=True)
    with await asyncio.to_thread(gateway.blobs.receive) as incoming:
        async for chunk in _chunks(request):
            await asyncio.to_thread(incoming.write, chunk)
            if incoming.size > gateway.max_blob_bytes:
                raise _too_large(gateway.max_blob_bytes)
        return await _kept(request, incoming, sha256)


METHODS: dict[str, Handler] = {"GET": send, "PUT": store}
"""HEAD comes with GET."""


async def _kept(request: web.Request, incoming: Incoming, sha256: str) -> web.Response:
    if incoming.sha256 != sha256:
        raise detail(422, f"The body's sha256 is {incoming.sha256}.")
    is_new = await asyncio.to_thread(request.app[GATEWAY].blobs.keep, incoming)
    answer = {"sha256": sha256, "size": incoming.size}
    return json_answer(answer, status=201 if is_new else 200, headers={"ETag": f'"{sha256}"'})


def _has_already(request: web.Request, etag: str) -> bool:
    asked = request.headers.get("If-None-Match", "")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked.split(","))


def _asked(request: web.Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return the first byte to send and the one after the last, None for all; raises Refusal."""
    if request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return one_range(request.headers.get("Range"), size)
    except Unsatisfiable as error:
        raise detail(416, str(error), Content_Range=f"bytes */{size}") from error


async def _pour(chunks: Iterator[bytes], answer: web.StreamResponse, due: int) -> None:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        async with asyncio.timeout(IDLE_SECONDS):
            await answer.write(chunk)
        due -= len(chunk)
    if due:
        # Without a cut the client would wait for the rest, and take the next answer for it.
        raise BlobMissing(f"{due} bytes of a blob are not in the store any more")


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces worth a thread's while; raises Refusal for a client that is slow, cut or unclear."""
    gathered = bytearray()
    try:
        while piece := await _next_piece(request):
            gathered += piece
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except TimeoutError as error:
        raise detail(408, f"Nothing came for {IDLE_SECONDS:.0f} seconds.", close=True) from error
    except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
        raise detail(400, "The body is not whole.", close=True) from error
    yield bytes(gathered)


async def _next_piece(request: web.Request) -> bytes:
    async with asyncio.timeout(IDLE_SECONDS):
        return await request.content.readany()


def _too_large(limit: int) -> Refusal:
    return detail(413, f"A blob has at most {limit // MIB} MiB.", close=True)
