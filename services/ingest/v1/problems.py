"""Problems as RFC 9457 has them: one kind a status, with what is wrong where, whoever refused the request."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import structlog
from aiohttp import web
from pydantic import ConfigDict, Field, ValidationError

from services.ingest.decisions import FOLD_TAKEN, NAME_TAKEN
from services.ingest.refusals import Refusal
from services.ingest.v1.values import Told

MEDIA_TYPE = "application/problem+json"
PREFIX = "/v1/"
MOST_ERRORS = 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a status means here; the code ends the problem's type."""

    code: str
    title: str


KINDS = {
    400: Kind("invalid", "The request is not valid"),
    401: Kind("not-authenticated", "Credentials are missing or wrong"),
    403: Kind("forbidden", "The account may not do this"),
    404: Kind("not-found", "There is no such thing"),
    405: Kind("method-not-allowed", "The path does not take this method"),
    406: Kind("not-acceptable", "It cannot be had in this form"),
    408: Kind("too-slow", "The request did not come in time"),
    409: Kind("conflict", "The state of the thing does not allow this"),
    413: Kind("too-large", "The request is too large"),
    415: Kind("unsupported-media-type", "The body is not in a form that is understood"),
    422: Kind("key-reused", "The Idempotency-Key belongs to another request"),
    429: Kind("too-many", "Too many requests"),
    503: Kind("unavailable", "Something the service needs is away for now"),
    507: Kind("no-space", "There is no room to store this"),
}
_OTHER = Kind("refused", "The request was refused")

_FIELDS = {"databoard_sf_id": "fold_id", "databoard_s_id": "submission_id", "raw_data": "dataset_id"}
_FIELDS |= {"databoard_s": "dataset_id", "raw_data_id": "dataset_id", "non_field_errors": ""}
"""What the 2016 interface calls a field, and what it is called here."""
_WORDS = {
    FOLD_TAKEN: "There is a fold with this number already.",
    NAME_TAKEN: "There is a dataset with this name already.",
}


class Wrong(Told):
    """One thing that is wrong: where, as a JSON pointer into the body or the name of a parameter, and what."""

    pointer: str
    code: str
    detail: str


class Problem(Told):
    """Why a request was refused; nothing was recorded."""

    model_config = ConfigDict(extra="allow")
    type: Annotated[str, Field(examples=["/v1/problems/not-found"])]
    title: str
    status: int
    detail: str
    errors: list[Wrong] | None = None
    request_id: str


def unfit(error: ValidationError, *, where: str = "") -> Refusal:
    """Refuse what a model does not take."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    errors = [
        {
            "pointer": where + "".join(f"/{_escaped(str(part))}" for part in one["loc"]),
            "code": one["type"],
            "detail": one["msg"],
        }
        for one in found[:MOST_ERRORS]
    ]
    return Refusal(400, {"detail": f"{len(found)} things are not valid.", "errors": errors})


def problem_answer(request: web.Request, refusal: Refusal) -> web.Response:
    """Return the answer to a refused request."""
    kind = KINDS.get(refusal.status, _OTHER)
    request_id = uuid.uuid4().hex
    told: dict[str, Any] = {"type": f"{PREFIX}problems/{kind.code}", "title": kind.title, "status": refusal.status}
    told |= _said(refusal.body) | {"request_id": request_id}
    log.info("request.refused", request_id=request_id, method=request.method, path=request.path, status=refusal.status)
    answer = web.Response(
        status=refusal.status, body=orjson.dumps(told), content_type=MEDIA_TYPE, headers=dict(refusal.headers)
    )
    if refusal.close:
        answer.force_close()
    return answer


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a refusal's body says, which may be that of the 2016 interface."""
    if "detail" in body:
        return dict(body)
    if isinstance(body.get("error"), str):
        return {"detail": body["error"]}
    errors = list(_wrongs(body, ""))
    return {"detail": errors[0]["detail"] if len(errors) == 1 else f"{len(errors)} things are not valid."} | {
        "errors": errors[:MOST_ERRORS]
    }


def _wrongs(body: Any, pointer: str) -> Iterator[dict[str, str]]:
    if isinstance(body, Mapping):
        for name, inner in body.items():
            known = _FIELDS.get(name, name) if not pointer else name
            yield from _wrongs(inner, f"{pointer}/{_escaped(known)}" if known else pointer)
    elif isinstance(body, list):
        for message in body:
            yield {"pointer": pointer, "code": "invalid", "detail": _WORDS.get(message, str(message))}


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")
