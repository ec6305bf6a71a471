"""Dead letters: records of the log that the projection could never apply."""

from __future__ import annotations

import re
from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from datarun.log import Position
from datarun.readmodel import catalogue
from datarun.readmodel.catalogue import DeadLetter as Listed
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says
from services.ingest.v1.pages import DEFAULT_ITEMS, Limit, Page, page_answer
from services.ingest.v1.values import Asked, Told

SHOWN_BYTES = 2000
_START = Position("", -1, -1)
_AFTER = re.compile(r"([A-Za-z0-9._-]{1,249}):([0-9]{1,9}):([0-9]{1,18})")


class DeadLetterQuery(Asked):
    """Which dead letters to list."""

    limit: Limit = DEFAULT_ITEMS
    after: Annotated[
        str | None,
        StringConstraints(pattern=f"^{_AFTER.pattern}$"),
        Field(description="Go on behind this topic:partition:offset."),
    ] = None


class DeadLetter(Told):
    """A record that can never be applied: where it is, why, and its first bytes as text."""

    position: Annotated[str, Field(description="topic:partition:offset.")]
    reason: str
    detail: str
    key: str | None
    value: Annotated[str | None, Field(description=f"Its first {SHOWN_BYTES} bytes; what is not UTF-8 is replaced.")]
    size: int
    headers: list[list[str | None]]


DeadLetterPage = Page[DeadLetter]


async def list_dead_letters(call: Call[DeadLetterQuery, None]) -> web.StreamResponse:
    """Return a page of dead letters."""
    query = call.query
    start = _START
    if query.after is not None and (match := _AFTER.fullmatch(query.after)):
        start = Position(match[1], int(match[2]), int(match[3]))
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_dead_letters(cursor, after=start, limit=query.limit, most_bytes=SHOWN_BYTES)
    )
    after = _name(found[-1].position) if len(found) == query.limit else None
    return page_answer(call.request, DeadLetterPage, [_shown(one) for one in found], after=after)


def _shown(letter: Listed) -> DeadLetter:
    return DeadLetter(
        position=_name(letter.position),
        reason=letter.reason,
        detail=letter.detail,
        key=_text(letter.key),
        value=_text(letter.value),
        size=letter.size,
        headers=letter.headers,
    )


def _name(position: Position) -> str:
    return f"{position.topic}:{position.partition}:{position.offset}"


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "replace")


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/dead-letters",
        handle=list_dead_letters,
        summary="List dead letters",
        tag="operations",
        roles=ORGANISERS,
        query=DeadLetterQuery,
        answers={200: Says("A page of dead letters by position.", DeadLetterPage)},
        example={"query": {"limit": 10}},
    ),
)
