"""Dead letters: what could never be applied or run, runs that nobody asked for, and what was done about them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field, StringConstraints

from datarun.dead_letters.ledger import Known
from datarun.dead_letters.letters import PROJECTOR, text_of
from datarun.dead_letters.letters import DeadLetter as RunnersLetter
from datarun.errors import LogUnavailable
from datarun.log import Position
from datarun.readmodel import dead_letters
from datarun.readmodel.dead_letters import SHOWN_BYTES, ListedLetter
from services.ingest.letters import LETTERS, Look
from services.ingest.refusals import detail
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says
from services.ingest.v1.pages import DEFAULT_ITEMS, Limit, Page, page_answer
from services.ingest.v1.values import Asked, Told

READ_SECONDS = 4.0
OPEN, ALL = "open", "all"
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
    state: Annotated[
        Literal["open", "retried", "dropped", "all"],
        Field(description="`open`: nobody has dealt with it."),
    ] = "open"


class Decision(Told):
    """What somebody did about a dead letter."""

    kind: Annotated[str, Field(description="`retried` or `dropped`.")]
    by: str
    at: Annotated[datetime, Field(description="By the broker's clock.")]
    note: str


class DeadLetter(Told):
    """A record that can never be applied or run, or that lacks its request (`orphan`): where it is, and why."""

    position: Annotated[str, Field(description="topic:partition:offset.")]
    reason: Annotated[str, Field(description="Such as `schema`; an `orphan` is gone once its request comes.")]
    detail: str
    key: str | None
    value: Annotated[
        str | None,
        Field(
            description=f"Its first {SHOWN_BYTES} bytes; what is not UTF-8 is replaced. Null of what the "
            "projector has not refused, and of orphans: `datarun dlq show` prints it."
        ),
    ]
    size: int
    headers: list[list[str | None]]
    found_by: Annotated[list[str], Field(description="`projector`, `runner` and `gateway`.")]
    decision: Annotated[Decision | None, Field(description="Null while nobody has dealt with it.")] = None


DeadLetterPage = Page[DeadLetter]


async def list_dead_letters(call: Call[DeadLetterQuery, None]) -> web.StreamResponse:
    """Return a page of dead letters, by default of those that nobody has dealt with."""
    query, letters, start = call.query, await _look(call), _START
    known = letters.known
    if query.after is not None and (match := _AFTER.fullmatch(query.after)):
        start = Position(match[1], int(match[2]), int(match[3]))
    kinds = () if query.state in (OPEN, ALL) else (query.state,)
    projected = await call.gateway.database.run(
        lambda cursor: dead_letters.list_letters(
            cursor,
            after=start,
            limit=query.limit,
            patience=letters.patience,
            decided=known.decided(*kinds),
            is_decided=None if query.state == ALL else query.state != OPEN,
        )
    )
    shown = {one.position: _shown(one, known) for one in projected}
    # Of one installation's topics the names are in the same order by any collation, so pages meet.
    others = (one for one in known.letters.values() if one.position > start and _is_wanted(one, known, query.state))
    for letter in _lowest(others, query.limit):
        is_beyond = len(projected) == query.limit and letter.position > projected[-1].position
        if not is_beyond:
            shown.setdefault(letter.position, _found(letter, known))
    page = sorted(shown)[: query.limit]
    after = text_of(page[-1]) if len(page) == query.limit else None
    return page_answer(call.request, DeadLetterPage, [shown[position] for position in page], after=after)


async def _look(call: Call[DeadLetterQuery, None]) -> Look:
    try:
        return await call.request.app[LETTERS].look(seconds=READ_SECONDS)
    except (LogUnavailable, TimeoutError) as error:
        raise detail(503, "The log does not answer.", Retry_After="5") from error


def _is_wanted(letter: RunnersLetter, known: Known, state: str) -> bool:
    decision = known.decisions.get(letter.position)
    return state in (ALL, OPEN if decision is None else decision.kind)


def _lowest(letters: Iterable[RunnersLetter], count: int) -> list[RunnersLetter]:
    return sorted(letters, key=lambda one: one.position)[:count]


def _shown(letter: ListedLetter, known: Known) -> DeadLetter:
    return DeadLetter(
        position=text_of(letter.position),
        reason=letter.reason,
        detail=letter.detail,
        key=_text(letter.key),
        value=_text(letter.value),
        size=letter.size,
        headers=letter.headers,
        found_by=[PROJECTOR, *_copied_by(letter.position, known)],
        decision=_decision(letter.position, known),
    )


def _found(letter: RunnersLetter, known: Known) -> DeadLetter:
    return DeadLetter(
        position=text_of(letter.position),
        reason=letter.reason,
        detail=letter.detail,
        key=letter.key,
        value=None,
        size=letter.size or 0,
        headers=[["ce_type", letter.wire_type]] if letter.wire_type else [],
        found_by=list(letter.found_by),
        decision=_decision(letter.position, known),
    )


def _copied_by(position: Position, known: Known) -> tuple[str, ...]:
    copied = known.letters.get(position)
    return () if copied is None else copied.found_by


def _decision(position: Position, known: Known) -> Decision | None:
    made = known.decisions.get(position)
    return None if made is None else Decision(kind=made.kind, by=made.by, at=made.at, note=made.note)


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
        example={"query": {"limit": 10, "state": "all"}},
    ),
)
