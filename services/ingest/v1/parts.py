"""The parts of a multipart body: fields into memory, files into the blob store piece by piece, all within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from datarun.blobs import CHUNK_BYTES, OCTETS, StreamedBlobs
from datarun.events import Blob
from datarun.file_names import MAX_FILES
from services.ingest.files import MIB
from services.ingest.refusals import Refusal, detail, invalid

FIELD_BYTES = 64 * 1024
IDLE_SECONDS = 60.0
MULTIPART = "multipart/form-data"
_PLAIN_ENCODINGS = ("", "binary", "7bit", "8bit")


@dataclass(slots=True)
class Parts:
    """What came: fields by name, and files that are stored by their file names."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, Blob] = field(default_factory=dict)
    size: int = 0


async def read_parts(
    request: web.Request,
    blobs: StreamedBlobs,
    *,
    most_bytes: int,
    before_file: Callable[[Parts, str], Awaitable[None]],
) -> Parts:
    """Read a multipart body; `before_file` may refuse what came before a file of a name is read. Raises Refusal."""
    if request.content_type != MULTIPART:
        raise detail(415, f'Unsupported media type "{request.content_type}" in request.', close=True)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise detail(415, "A multipart body is sent as it is, without a content encoding.", close=True)
    if (request.content_length or 0) > most_bytes:
        raise _too_large(most_bytes)
    parts = Parts()
    try:
        async for part in _parts(await request.multipart()):
            await _read(part, parts, blobs, most_bytes=most_bytes, before_file=before_file)
    except TimeoutError as error:
        raise detail(408, f"Nothing came for {IDLE_SECONDS:.0f} seconds.", close=True) from error
    except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
        raise detail(400, "The body is not whole.", close=True) from error
    except (ValueError, AssertionError, RuntimeError, EOFError) as error:
        # What aiohttp says of a body that is no multipart body depends on where it stops being one.
        raise detail(400, "The body is not well-formed multipart/form-data.", close=True) from error
    return parts


async def _parts(reader: MultipartReader) -> AsyncIterator[BodyPartReader]:
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            part = await reader.next()
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            raise detail(400, "A part of the body is itself in parts.", close=True)
        if part.headers.get("Content-Transfer-Encoding", "").lower() not in _PLAIN_ENCODINGS:
            raise detail(400, "Parts are sent as they are, without a transfer encoding.", close=True)
        if part.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise detail(400, "Parts are sent as they are, without a content encoding.", close=True)
        yield part


async def _read(
    part: BodyPartReader,
    parts: Parts,
    blobs: StreamedBlobs,
    *,
    most_bytes: int,
    before_file: Callable[[Parts, str], Awaitable[None]],
) -> None:
    if part.filename is None:
        name = part.name or ""
        if name in parts.fields:
            raise invalid(**{name[:100]: "Given more than once."})
        parts.fields[name] = await _text(part, name, parts, most_bytes)
        return
    if part.filename in parts.files:
        raise invalid(files=f"{ascii(part.filename)[1:-1][:100]} is given more than once.")
    if len(parts.files) >= MAX_FILES:
        raise detail(400, f"At most {MAX_FILES} files.", close=True)
    await before_file(parts, part.filename)
    parts.files[part.filename] = await _store(part, parts, blobs, most_bytes)


async def _text(part: BodyPartReader, name: str, parts: Parts, most_bytes: int) -> str:
    content = bytearray()
    async for chunk in _chunks(part, parts, most_bytes):
        content += chunk
        if len(content) > FIELD_BYTES or len(parts.fields) > MAX_FILES:
            raise detail(413, f"A field has at most {FIELD_BYTES // 1024} KiB.", close=True)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise invalid(**{name[:100] or "body": "Not valid UTF-8."}) from error
    if "\0" in text:
        raise invalid(**{name[:100] or "body": "Null characters are not allowed."})
    return text


async def _store(part: BodyPartReader, parts: Parts, blobs: StreamedBlobs, most_bytes: int) -> Blob:
    with await asyncio.to_thread(blobs.receive) as incoming:
        async for chunk in _chunks(part, parts, most_bytes):
            await asyncio.to_thread(incoming.write, chunk)
        blob = Blob(sha256=incoming.sha256, size=incoming.size, media_type=OCTETS)
        await asyncio.to_thread(blobs.keep, incoming)
    return blob


async def _chunks(part: BodyPartReader, parts: Parts, most_bytes: int) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            chunk = await part.read_chunk(CHUNK_BYTES)
        if not chunk:
            return
        parts.size += len(chunk)
        if parts.size > most_bytes:
            raise _too_large(most_bytes)
        yield chunk


def _too_large(most_bytes: int) -> Refusal:
    return detail(413, f"The files together have at most {most_bytes // MIB} MiB.", close=True)
