"""Answers: compact JSON, as the 2016 service wrote it; a long list is sent while it is made."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from services.ingest.files import MIB
from services.ingest.refusals import Refusal

JSON = "application/json"
WHOLE_BYTES = MIB
"""A list up to this size is sent whole, with its length."""
UNDER_WAY = web.RequestKey("answer_under_way", bool)
"""Set once a part of the answer is sent; from then on a failure can only cut it."""


def json_answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer."""
    return web.Response(status=status, body=orjson.dumps(body), content_type=JSON, headers=headers)


def refusal_answer(refusal: Refusal) -> web.Response:
    """Return the answer to a request that was refused."""
    answer = json_answer(refusal.body, status=refusal.status, headers=dict(refusal.headers))
    if refusal.close:
        answer.force_close()
    return answer


class ListAnswer:
    """A JSON array whose items come one batch after the other."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._made = bytearray(b"[")
        self._is_empty = True
        self._stream: web.StreamResponse | None = None

    async def add(self, items: bytes) -> None:
        """Add items, each already JSON, with commas between; raises ConnectionError when the client is gone."""
        if not items:
            return
        if not self._is_empty:
            self._made += b","
        self._is_empty = False
        self._made += items
        if len(self._made) > WHOLE_BYTES:
            await self._flush()

    async def finish(self) -> web.StreamResponse:
        """Send what is left; the kernel has every byte when this returns, and ConnectionError is raised otherwise."""
        self._made += b"]"
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        # Only an empty buffer counts as written.
        transport.set_write_buffer_limits(high=0)
        if self._stream is None:
            self._stream = web.Response(body=bytes(self._made), content_type=JSON)
            await self._stream.prepare(self._request)
            await self._stream.write_eof()
        else:
            await self._stream.write_eof(bytes(self._made))
        return self._stream

    async def _flush(self) -> None:
        if self._stream is None:
            self._stream = web.StreamResponse(headers={"Content-Type": JSON})
            self._request[UNDER_WAY] = True
            await self._stream.prepare(self._request)
        await self._stream.write(bytes(self._made))
        self._made.clear()
