"""Idempotency-Key: the same request with the same key has its first answer again, another request with it is refused.

The answer is recorded in the transaction that claims what it tells, so there is no moment between the two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from pydantic import BaseModel

from datarun.errors import DatarunError
from datarun.intake import answered
from datarun.intake.answered import FirstAnswer
from services.ingest.refusals import Refusal, detail, invalid
from services.ingest.v1.operation import JSON, Call

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = re.compile(r"[\x21-\x7e]{1,200}")

T = TypeVar("T")


class Replay(DatarunError):
    """The request had its answer before."""

    def __init__(self, first: FirstAnswer) -> None:
        super().__init__("answered before")
        self.first = first


class Key:
    """What a request is known by: its account and its Idempotency-Key, if it has one."""

    def __init__(self, call: Call[Any, Any], content: str) -> None:
        """Read the key; `content` is all that makes two requests the same. Raises Refusal."""
        self._username = call.account.username
        self._text = call.request.headers.get(HEADER)
        if self._text is not None and not KEY.fullmatch(self._text):
            raise invalid(**{HEADER: "Must be 1 to 200 printable ASCII characters without spaces."})
        told = f"{call.request.method} {call.request.path}\n{content}"
        self._digest = hashlib.sha256(told.encode()).digest()

    @property
    def is_given(self) -> bool:
        """Tell whether the request has one."""
        return self._text is not None

    def around(self, work: Callable[[Cursor], T], told: Callable[[T], tuple[int, BaseModel]]) -> Callable[[Cursor], T]:
        """Return the same work, which raises Replay when it was done before, and records what it is answered."""
        if self._text is None:
            return work
        key = self._text

        def once(cursor: Cursor) -> T:
            answered.lock(cursor, self._username, key)
            self._check(answered.find(cursor, self._username, key))
            done = work(cursor)
            status, body = told(done)
            answered.record(cursor, self._username, key, FirstAnswer(self._digest, status, body.model_dump_json()))
            return done

        return once

    def check(self, cursor: Cursor) -> None:
        """Raise Replay for a request that was answered before, Refusal for another one with its key."""
        if self._text is not None:
            self._check(answered.find(cursor, self._username, self._text))

    def _check(self, first: FirstAnswer | None) -> None:
        if first is None:
            return
        if first.request_digest != self._digest:
            raise detail(422, f"{HEADER} was used with a different request.")
        raise Replay(first)


async def answer_once(
    call: Call[Any, Any], key: Key, accept: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Return what `accept` answers, or what was answered before; who lost a race for its own key is not refused."""
    if not key.is_given:
        return await accept()
    run = call.gateway.database.run
    try:
        await run(key.check)
        try:
            return await accept()
        except Refusal:
            await run(key.check)
            raise
    except Replay as replay:
        first = replay.first
        return web.Response(status=first.status, text=first.body, content_type=JSON, headers={REPLAYED: "true"})
