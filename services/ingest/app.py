"""The composition root: routes, what goes around every request, what starts and stops with the service."""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from datarun import accounts, tokens
from datarun.blobs import open_blobs
from datarun.errors import BlobsUnavailable, DatabaseUnavailable, Unconfirmed
from datarun.log import EventLog
from datarun.settings import Settings
from services.ingest import blobs as blob_routes
from services.ingest import datasets, folds, health, metrics, predictions
from services.ingest.answers import UNDER_WAY, refusal_answer
from services.ingest.arrays import Arrays
from services.ingest.auth import Doorkeeper
from services.ingest.bodies import BUFFERED, Buffered
from services.ingest.database import ANSWER_SECONDS, Database
from services.ingest.following import Follower
from services.ingest.gateway import ACCOUNT, GATEWAY, Gateway
from services.ingest.gathering import Gathering
from services.ingest.guard import GUARD, Guard, SlowBody, watch, watching
from services.ingest.known_indices import KnownIndices
from services.ingest.log_end import LogEnd
from services.ingest.projected import Projected
from services.ingest.refusals import Refusal, detail, forbidden, not_found, not_recordable, unconfirmed
from services.ingest.relay import Relay
from services.ingest.scoring import Scoring
from services.ingest.together import STORING_THREADS
from services.ingest.v1 import routes as v1
from services.ingest.v1.problems import PREFIX, problem_answer

COMPUTING_THREADS = 4
HASHING_THREADS = 2
STOP_SECONDS = 2.0

READING = ("GET", "HEAD")
MAY_CLAIM: web.AppKey[Callable[[], bool]] = web.AppKey("may_claim")

log = structlog.get_logger(__name__)


def make_app(settings: Settings, event_log: EventLog, *, may_claim: Callable[[], bool]) -> web.Application:
    """Return the service; nothing is opened before it starts, and it starts whatever is away.

    While `may_claim` says no, nothing is recorded.
    """
    app = web.Application(middlewares=[metrics.observe, watch, answer_refusals, admit])
    app[GUARD] = Guard()
    app[MAY_CLAIM] = may_claim
    app[BUFFERED] = Buffered()
    app.cleanup_ctx.append(watching)
    app[metrics.METRICS] = metrics.Metrics()
    app.cleanup_ctx.append(_parts(settings, event_log))
    app.add_routes([web.get("/healthz", health.healthz), web.get("/readyz", health.readyz)])
    app.add_routes([web.get("/metrics", metrics.show)])
    app.add_routes([web.route(method, blob_routes.PATH, handler) for method, handler in blob_routes.METHODS.items()])
    v1.add_to(app, event_log, settings)
    for path, methods in LEGACY.items():
        # The 2016 service redirected a path without its slash, which loses a POST; both are served.
        for variant in (path, path.removesuffix("/")):
            app.add_routes([web.route(method, f"/runapp/{variant}", handler) for method, handler in methods.items()])
    return app


LEGACY: dict[str, dict[str, Handler]] = {
    "rawdata/": {"GET": datasets.list_datasets, "POST": datasets.upload},
    "rawdata/split/": {"POST": datasets.split},
    "rawdata/customsplit/": {"POST": datasets.custom_split},
    "submissionfold/": {"GET": folds.list_folds, "POST": folds.request_fold},
    "submissionfold/{fold_id:[1-9][0-9]{0,9}}/": {"GET": folds.show_fold},
    "submissionfold-light/": {"GET": folds.list_light},
    "testpredictions/list/": {"POST": predictions.fetch_list},
    "testpredictions/new/": {"POST": predictions.fetch_new},
}
"""The routes of the 2016 interface, below /runapp/."""
ROLES: dict[str, tuple[str, ...] | None] = {
    "/runapp/": ("admin", "organiser", "participant"),
    "/blobs/": ("admin", "runner"),
    **v1.ROLES,
}
"""Who may use which paths; what is not below one of them is for all."""


@web.middleware
async def answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into an answer; whatever the input, none is a 5xx but for what is away."""
    try:
        return await _cut_if_it_fails(request, handler)
    except Refusal as refusal:
        if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR and refusal.__cause__ is not None:
            log.warning("request.unavailable", path=request.path, reason=str(refusal.__cause__).strip())
        return _answer(request, refusal)
    except Unconfirmed as error:
        log.warning("request.unconfirmed", path=request.path, reason=str(error))
        return _answer(request, unconfirmed())
    except (DatabaseUnavailable, BlobsUnavailable) as error:
        log.warning("request.not_recordable", path=request.path, reason=str(error))
        return _answer(request, not_recordable())
    except (SlowBody, web.HTTPException) as error:
        return _answer(request, _server_refusal(request, error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.error("request.no_space", path=request.path, reason=str(error))  # noqa: TRY400 - said in full
        return _answer(request, detail(507, "Not enough storage; nothing was recorded."))


def _answer(request: web.Request, refusal: Refusal) -> web.Response:
    is_v1 = request.path.startswith(PREFIX)
    return problem_answer(request, refusal) if is_v1 else refusal_answer(refusal)


async def _cut_if_it_fails(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        if not request.get(UNDER_WAY):
            raise
        log.warning("answer.cut", path=request.path, reason=str(error))
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer could not be finished") from error


def _server_refusal(request: web.Request, error: SlowBody | web.HTTPException) -> Refusal:
    match error:
        case SlowBody():
            return detail(408, "Request not received in time.", close=True)
        case web.HTTPMethodNotAllowed():
            return detail(405, f'Method "{request.method}" not allowed.', Allow=error.headers["Allow"])
        case web.HTTPNotFound():
            return not_found()
        case _:
            return detail(error.status, error.reason)


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let only known accounts reach a route that exists, each those of its role."""
    admitted = _admitted(request.path) if request.match_info.http_exception is None else None
    if admitted is not None:
        doorkeeper = request.app[GATEWAY].doorkeeper
        account = request[ACCOUNT] = await doorkeeper.admit(
            request.headers.get("Authorization"), address=request.remote or ""
        )
        if account.role not in admitted:
            raise forbidden()
        if request.method not in READING and not request.app[MAY_CLAIM]():
            raise DatabaseUnavailable("the claims of the log are not read yet")
    return await handler(request)


def _admitted(path: str) -> tuple[str, ...] | None:
    """Return the roles a path is for, None for one that is for all."""
    return next((roles for prefix, roles in ROLES.items() if path.startswith(prefix)), None)


def _parts(settings: Settings, event_log: EventLog) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(app: web.Application) -> AsyncIterator[None]:
        database = Database(settings.postgres)
        computing = ThreadPoolExecutor(COMPUTING_THREADS, thread_name_prefix="compute")
        hashing = ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hash")
        storing = ThreadPoolExecutor(STORING_THREADS, thread_name_prefix="store")
        blobs = open_blobs(settings.blobs)
        owner = secrets.randbelow(2**31 - 1) + 1
        relay = Relay(event_log, database, catalogue=settings.catalogue, owner=owner)
        projected = Projected(settings.postgres, database, owner=owner, on_change=relay.on_projected)
        gateway = Gateway(
            catalogue=settings.catalogue,
            brokers=settings.brokers,
            event_log=event_log,
            database=database,
            blobs=blobs,
            max_blob_bytes=settings.max_blob_mib << 20,
            arrays=Arrays(blobs),
            known_indices=KnownIndices(),
            relay=relay,
            projected=projected,
            log_end=LogEnd(event_log),
            gathering=Gathering(seconds=ANSWER_SECONDS),
            doorkeeper=Doorkeeper(
                lambda username: database.run(lambda cursor: accounts.find(cursor, username)),
                lambda digest: database.run(lambda cursor: tokens.find(cursor, digest)),
                hashing,
            ),
            threads=computing,
            storing=storing,
            scoring=Scoring(blobs),
            shows_test_scores=settings.show_test_scores,
            background=set(),
        )
        app[GATEWAY] = gateway
        follower = Follower(event_log, settings.postgres, catalogue=settings.catalogue, may_begin=app[MAY_CLAIM])
        projected.start()
        relay.start()
        follower.start()
        yield
        if gateway.background:
            await asyncio.wait(gateway.background, timeout=STOP_SECONDS)
        follower.stop()
        await relay.stop()
        await projected.stop()
        gateway.log_end.close()
        gateway.scoring.close()
        database.close()
        for threads in (computing, hashing, storing):
            threads.shutdown(wait=False, cancel_futures=True)

    return run
