"""Which requests of a queue nobody has begun: what a runner asks before it starts one that it has reason to doubt."""

from __future__ import annotations

import asyncio

from aiohttp import web

from datarun.errors import LogUnavailable
from datarun.log import Position, TopicPartition
from datarun.readmodel import queries
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, QUEUES
from services.ingest.answers import json_answer
from services.ingest.gateway import GATEWAY, Gateway
from services.ingest.log_end import Ends
from services.ingest.refusals import Refusal, detail, invalid

MOST_OFFSETS = 1000
MAX_OFFSET = 9_223_372_036_854_775_807 - MOST_OFFSETS
REACH_SECONDS = 1.0
"""How long an answer waits until the read model has the log's present end."""


async def list_open(request: web.Request) -> web.StreamResponse:
    """GET queues/<H|L>/open?from=&limit=: the open offsets from one on; the answer holds up to `until`, exclusively."""
    gateway = request.app[GATEWAY]
    queue = request.match_info["queue"]
    start = _number(request, "from", default=0, least=0, most=MAX_OFFSET)
    limit = _number(request, "limit", default=MOST_OFFSETS, least=1, most=MOST_OFFSETS)
    ends = await _reached(gateway)
    end = ends.get(TopicPartition(gateway.catalogue.full_name(QUEUES[queue]), 0), 0)
    until = max(start, min(start + limit, end))
    found = await gateway.database.run(lambda cursor: queries.open_requests(cursor, queue, start=start, end=until))
    return json_answer({"queue": queue, "from": start, "until": until, "end": end, "open": found})


async def _reached(gateway: Gateway) -> Ends:
    """Return the end of the log once the read model has reached it; raises Refusal if that is not soon."""
    topics = [gateway.catalogue.full_name(topic) for topic in (FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW)]
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REACH_SECONDS
    try:
        async with asyncio.timeout_at(deadline):
            ends = await gateway.log_end.of(topics)
    except (TimeoutError, LogUnavailable) as error:
        raise _cannot_tell() from error
    last = [Position(*tp, end - 1) for tp, end in ends.items() if end]
    waits = [gateway.projected.wait(position, seconds=deadline - loop.time()) for position in last]
    if not all(await asyncio.gather(*waits)):
        raise _cannot_tell()
    return ends


def _cannot_tell() -> Refusal:
    return detail(503, "The read model has not reached the end of the log.", Retry_After="1")


def _number(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):  # noqa: PLR2004 - digits of 64 bits
        raise invalid(**{name: f"Must be an integer from {least} to {most}."})
    return int(text)
