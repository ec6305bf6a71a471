"""Which requests of a queue nobody has begun: what a runner asks before it starts one that it has reason to doubt."""

from __future__ import annotations

import asyncio
from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, Field

from datarun.errors import LogUnavailable
from datarun.log import Position, TopicPartition
from datarun.readmodel import queries
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, QUEUES
from services.ingest.gateway import Gateway
from services.ingest.log_end import Ends
from services.ingest.refusals import Refusal, detail
from services.ingest.v1.operation import RUNNERS, Call, Operation, Says, answer
from services.ingest.v1.values import Asked, Number, Priority, Told

MOST_OFFSETS = 1000
MAX_OFFSET = 2**53 - 1 - MOST_OFFSETS
REACH_SECONDS = 1.0
"""How long an answer waits until the read model has the log's present end."""


class OpenQuery(Asked):
    """Which offsets to look at."""

    model_config = ConfigDict(populate_by_name=False)
    start: Annotated[int, Number, Field(alias="from", ge=0, le=MAX_OFFSET, description="The first offset.")] = 0
    limit: Annotated[int, Number, Field(ge=1, le=MOST_OFFSETS, description="How many offsets.")] = MOST_OFFSETS


class Open(Told):
    """The open offsets of a queue; the answer holds up to `until`, exclusively, `end` is the log's."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    queue: Priority
    start: Annotated[int, Field(alias="from")]
    until: int
    end: int
    open: list[int]


async def list_open(call: Call[OpenQuery, None]) -> web.StreamResponse:
    """Return the requests of a queue that nobody has begun, from an offset on."""
    gateway, queue, start = call.gateway, call.path["queue"], call.query.start
    ends = await _reached(gateway)
    end = ends.get(TopicPartition(gateway.catalogue.full_name(QUEUES[queue]), 0), 0)
    until = max(start, min(start + call.query.limit, end))
    found = await gateway.database.run(lambda cursor: queries.open_requests(cursor, queue, start=start, end=until))
    return answer(Open(queue=queue, start=start, until=until, end=end, open=found))


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


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/queues/{queue}/open",
        handle=list_open,
        summary="List a queue's open requests",
        tag="operations",
        roles=RUNNERS,
        query=OpenQuery,
        answers={200: Says("The offsets of the requests that nobody has begun.", Open)},
        problems=(503,),
        example={"path": {"queue": "H"}, "query": {"from": 0, "limit": 100}},
    ),
)
