"""Every operation of /v1, and the routes they make."""

from __future__ import annotations

from aiohttp import web

from datarun.log import EventLog
from datarun.settings import Settings
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
    leaderboard,
    live,
    openings,
    predictions,
    retries,
    runners,
    scores,
    splits,
    uploads,
    why,
)
from services.ingest.v1.operation import Operation
from services.ingest.v1.tail import TAIL, Tail
from services.ingest.v1.waiting import ENDS, Ends
from services.ingest.v1.webhooks import by_hand, operations
from services.ingest.v1.webhooks.office import delivering

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
    *scores.OPERATIONS,
    *leaderboard.OPERATIONS,
    *cursors.OPERATIONS,
    *live.OPERATIONS,
    *operations.OPERATIONS,
    *by_hand.OPERATIONS,
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


def add_to(app: web.Application, event_log: EventLog, settings: Settings) -> None:
    """Add the routes of all operations, what describes them, the followers of the log, and what sends webhooks."""
    tail = app[TAIL] = Tail(event_log, settings.catalogue)
    ends = app[ENDS] = Ends()
    letters = app[LETTERS] = Letters(event_log, settings)

    async def stop(_: web.Application) -> None:
        tail.stop()
        ends.stop()

    async def close(_: web.Application) -> None:
        tail.close()
        letters.close()

    app.on_shutdown.append(stop)
    app.on_cleanup.append(close)
    app.cleanup_ctx.append(delivering(settings, event_log))
    documents.add_documents(app, OPERATIONS)
    app.add_routes([web.route(operation.method, operation.path, operation.handler()) for operation in OPERATIONS])
