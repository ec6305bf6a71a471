"""Every operation of /v1, and the routes they make."""

from __future__ import annotations

from aiohttp import web

from services.ingest.v1 import (
    accepting,
    cancel,
    datasets,
    dead_letters,
    documents,
    folds,
    history,
    kinds,
    openings,
    predictions,
    retries,
    runners,
    uploads,
    why,
)
from services.ingest.v1.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *datasets.OPERATIONS,
    *uploads.OPERATIONS,
    *folds.OPERATIONS,
    *accepting.OPERATIONS,
    *retries.OPERATIONS,
    *why.OPERATIONS,
    *history.OPERATIONS,
    *cancel.OPERATIONS,
    *predictions.OPERATIONS,
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


def add_to(app: web.Application) -> None:
    """Add the routes of all operations, and what describes them."""
    documents.add_documents(app, OPERATIONS)
    app.add_routes([web.route(operation.method, operation.path, operation.handler()) for operation in OPERATIONS])
