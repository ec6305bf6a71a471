"""Reading what a request brings: path, query, body and the wanted form of the answer, each checked by its model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import Field, TypeAdapter, ValidationError

from services.ingest.bodies import read_json
from services.ingest.refusals import Refusal, detail, not_found
from services.ingest.v1.problems import unfit
from services.ingest.v1.values import (
    Asked,
    DatasetId,
    DeliveryId,
    FoldId,
    Number,
    Priority,
    SubmissionId,
    WebhookId,
)

M = TypeVar("M", bound=Asked)


class Nothing(Asked):
    """No parameters."""


PATH_TYPES: dict[str, Any] = {
    "fold_id": Annotated[FoldId, Number],
    "submission_id": Annotated[SubmissionId, Number],
    "dataset_id": Annotated[DatasetId, Number],
    "webhook_id": Annotated[WebhookId, Number],
    "delivery_id": Annotated[DeliveryId, Number],
    "queue": Priority,
    "part": Literal["full-train", "test"],
    "cursor": Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="A name of your own.")],
    "code": Annotated[str, Field(pattern="^[a-z-]{1,40}$")],
}
"""What may stand in a path; anything else is not found."""
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in PATH_TYPES.items()}


def read_path(request: web.Request) -> dict[str, Any]:
    """Return the values in a request's path; raises Refusal."""
    try:
        return {name: _ADAPTERS[name].validate_python(text) for name, text in request.match_info.items()}
    except ValidationError as error:
        raise not_found() from error


def read_query(request: web.Request, model: type[M]) -> M:
    """Return a request's query; a name that comes twice, or that nobody knows, is refused. Raises Refusal."""
    given = request.query
    twice = [name for name in given if len(given.getall(name)) > 1]
    if twice:
        wrong = {"pointer": f"?{twice[0][:100]}", "code": "twice", "detail": "Given more than once."}
        raise Refusal(400, {"detail": "A parameter was given more than once.", "errors": [wrong]})
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise unfit(error, where="?") from error


async def read_body(request: web.Request, model: type[M]) -> M:
    """Return a request's JSON body; raises Refusal."""
    body = await read_json(request)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise unfit(error) from error


def check_accept(request: web.Request, offered: Sequence[str]) -> None:
    """Raise Refusal when the client wants none of what is offered."""
    if choose(request.headers.get("Accept"), offered) is None:
        raise detail(406, f"It can be had as {', '.join(offered)}.")


def choose(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the offered media type a client likes best, the first of equals; None when it wants none of them."""
    if not accept:
        return offered[0]
    wanted = list(_wanted(accept))
    rated = [(max((weight for kind, weight in wanted if _fits(kind, one)), default=0.0), one) for one in offered]
    best = max(weight for weight, _ in rated)
    return next(one for weight, one in rated if weight == best) if best > 0 else None


def _wanted(accept: str) -> Iterator[tuple[str, float]]:
    for item in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            yield kind, float(weight)
        except ValueError:
            yield kind, 1.0


def _fits(kind: str, offered: str) -> bool:
    main, _, sub = kind.partition("/")
    return kind == offered or (sub == "*" and main in ("*", offered.partition("/")[0]))
