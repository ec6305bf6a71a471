"""Every operation of /v1, and the routes they make."""

from __future__ import annotations

from aiohttp import web

from services.ingest.v1 import (
    accepting,
    cancel,
    datasets,
    dead_letters,
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
)
ROLES: dict[str, tuple[str, ...] | None] = {
    **{operation.path.partition("{")[0]: None for operation in OPERATIONS if operation.roles is None},
    "/v1/": ("admin", "organiser", "participant", "runner"),
}
"""Below /v1/ everybody is known; what a role may use its operation says."""


def routes() -> list[web.RouteDef]:
    """Return the routes of all operations."""
    return [web.route(operation.method, operation.path, operation.handler()) for operation in OPERATIONS]
