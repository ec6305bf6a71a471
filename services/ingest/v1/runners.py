"""Runners by their newest heartbeats."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from datarun.readmodel import catalogue
from datarun.readmodel.catalogue import ListedRunner
from services.ingest.v1.operation import PEOPLE, Call, Operation, Says
from services.ingest.v1.pages import DEFAULT_ITEMS, Limit, Page, page_answer
from services.ingest.v1.values import Asked, Text, Told

ALIVE_SECONDS = 10.0
"""Silent for longer, a runner loses what it holds."""


class RunnerQuery(Asked):
    """Which runners to list."""

    limit: Limit = DEFAULT_ITEMS
    after: Text = ""


class RunningFold(Told):
    """A fold that a runner holds."""

    fold_id: int
    attempt: int
    delivery: int


class Runner(Told):
    """A runner as its last heartbeat told of it; lists of what it holds are those it named then."""

    id: str
    alive: Annotated[bool, Field(description="Heard in the last ten seconds, and not stopping.")]
    stopping: bool
    seen_at: datetime
    host: str
    queues: list[str]
    slots: int
    free: int
    running: list[RunningFold]
    splitting: list[int]
    skipped: int
    sandbox_level: int
    mechanisms: list[str]
    versions: dict[str, str]


RunnerPage = Page[Runner]


async def list_runners(call: Call[RunnerQuery, None]) -> web.StreamResponse:
    """Return a page of runners."""
    query = call.query
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_runners(cursor, after=query.after, limit=query.limit, alive_seconds=None)
    )
    after = found[-1].runner_id if len(found) == query.limit else None
    return page_answer(call.request, RunnerPage, [_shown(one, only_of=call.only_of) for one in found], after=after)


def _shown(runner: ListedRunner, *, only_of: str | None) -> Runner:
    beat: dict[str, Any] = runner.heartbeat
    busy = len(beat["running"]) + len(beat["splitting"])
    return Runner(
        id=runner.runner_id,
        alive=not runner.stopping and runner.seconds_silent <= ALIVE_SECONDS,
        stopping=runner.stopping,
        seen_at=runner.seen_at,
        host=beat["host"],
        queues=beat["queues"],
        slots=beat["slots"],
        free=max(0, beat["slots"] - busy),
        # Whose fold it is a participant need not know.
        running=[RunningFold(**fold) for fold in beat["running"]] if only_of is None else [],
        splitting=beat["splitting"],
        skipped=beat["skipped"],
        sandbox_level=beat["sandbox"]["level"],
        mechanisms=beat["sandbox"]["mechanisms"],
        versions=beat["versions"],
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/runners",
        handle=list_runners,
        summary="List runners",
        tag="runners",
        roles=PEOPLE,
        query=RunnerQuery,
        answers={200: Says("A page of runners by name.", RunnerPage)},
        example={"query": {"limit": 10}},
    ),
)
