"""Every operation of /v1, and the routes they make."""

from __future__ import annotations

from aiohttp import web

from datarun.log import EventLog
from datarun.topics import Catalogue
from services.ingest.letters import LETTERS, Letters
from services.ingest.v1 import (
    accepting,
    cancel,
    cursors,
    datasets,
    dead_letters,
    documents,
    folds,
    history,
    kinds,
    live,
    openings,
    predictions,
    retries,
    runners,
    splits,
    uploads,
    why,
)
from services.ingest.v1.operation import Operation
from services.ingest.v1.tail import TAIL, Tail
from services.ingest.v1.waiting import ENDS, Ends

OPERATIONS: tuple[Operation, ...] = (
    *datasets.OPERATIONS,
    *splits.OPERATIONS,
    *uploads.OPERATIONS,
    *folds.OPERATIONS,
    *accepting.OPERATIONS,
    *retries.OPERATIONS,
    *why.OPERATIONS,
    *history.OPERATIONS,
    *cancel.OPERATIONS,
    *predictions.OPERATIONS,
    *cursors.OPERATIONS,
    *live.OPERATIONS,
    *runners.OPERATIONS,
    *openings.OPERATIONS,
    *dead_letters.OPERATIONS,
    *kinds.OPERATIONS,
    *documents.OPERATIONS,
)
ROLES: dict[str, tuple[str, ...] | None] = {
    **{operation.path.partition("{")[0]: None for operation in OPERATIONS if operation.roles is None},
    "/v1/": ("admin", "organiser", "participant", "runner"),
}
"""Below /v1/ everybody is known; what a role may use its operation says."""


def add_to(app: web.Application, event_log: EventLog, catalogue: Catalogue) -> None:
    """Add the routes of all operations, what describes them, and the followers of the log."""
    tail = app[TAIL] = Tail(event_log, catalogue)
    ends = app[ENDS] = Ends()
    letters = app[LETTERS] = Letters(event_log, catalogue)

    async def stop(_: web.Application) -> None:
        tail.stop()
        ends.stop()

    async def close(_: web.Application) -> None:
        tail.close()
        letters.close()

    app.on_shutdown.append(stop)
    app.on_cleanup.append(close)
    documents.add_documents(app, OPERATIONS)
    app.add_routes([web.route(operation.method, operation.path, operation.handler()) for operation in OPERATIONS])
