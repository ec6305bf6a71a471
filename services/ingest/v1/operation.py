"""One operation of /v1: its route, the models of what it takes and answers, who may use it, and an example."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from services.ingest.auth import Account
from services.ingest.gateway import ACCOUNT, GATEWAY, Gateway
from services.ingest.refusals import forbidden
from services.ingest.v1 import inputs
from services.ingest.v1.values import Asked

PEOPLE = ("admin", "organiser", "participant")
ORGANISERS = ("admin", "organiser")
RUNNERS = ("admin", "runner")
JSON = "application/json"

Q = TypeVar("Q")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A request to an operation, checked: its path's, query's and body's values as the operation's models."""

    request: web.Request
    path: Mapping[str, Any]
    query: Q
    body: B

    @property
    def gateway(self) -> Gateway:
        """The parts of this gateway."""
        return self.request.app[GATEWAY]

    @property
    def account(self) -> Account:
        """Who asks."""
        return self.request[ACCOUNT]

    @property
    def only_of(self) -> str | None:
        """The account whose work alone may be seen: a participant's own; None for those who see all."""
        return self.account.username if self.account.role == "participant" else None


@dataclass(frozen=True, slots=True)
class Says:
    """What an answer of some status is: a model, or media types of its own."""

    description: str
    model: type[BaseModel] | None = None
    media_types: tuple[str, ...] = (JSON,)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation; from this come its checks, its documentation and its tests."""

    method: str
    path: str
    handle: Callable[[Call[Any, Any]], Awaitable[web.StreamResponse]]
    summary: str
    tag: str
    answers: Mapping[int, Says]
    roles: tuple[str, ...] | None = PEOPLE
    """Who may use it; None is everybody, known or not."""
    query: type[Asked] = inputs.Nothing
    body: type[Asked] | None = None
    body_may_be_absent: bool = False
    multipart: type[Asked] | None = None
    """The model of a multipart body, which the handler reads itself."""
    problems: tuple[int, ...] = ()
    """Statuses of the refusals that are this operation's own."""
    takes_key: bool = False
    """Whether it honours an Idempotency-Key."""
    takes_wait: bool = False
    """Whether it honours `Prefer: wait`."""
    takes_last_id: bool = False
    """Whether it goes on behind a Last-Event-ID."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """An example's `path`, `query` and `body`."""

    @property
    def name(self) -> str:
        """Its operationId."""
        return self.handle.__name__

    @property
    def media_types(self) -> tuple[str, ...]:
        """What its good answers can be."""
        return tuple(dict.fromkeys(kind for says in self.answers.values() for kind in says.media_types))

    def handler(self) -> Handler:
        """Return what serves its route."""

        async def serve(request: web.Request) -> web.StreamResponse:
            if self.roles is not None and request[ACCOUNT].role not in self.roles:
                raise forbidden()
            path = inputs.read_path(request)
            query = inputs.read_query(request, self.query)
            if self.media_types:
                inputs.check_accept(request, self.media_types)
            body = await inputs.read_body(request, self.body) if self.body else None
            if self.method == "GET" and self.roles is not None:
                await request.app[GATEWAY].reach(request)
            return await self.handle(Call(request, path, query, body))

        return serve


def answer(told: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a model as JSON."""
    content = told.__pydantic_serializer__.to_json(told)
    return web.Response(status=status, body=content, content_type=JSON, headers=headers)
