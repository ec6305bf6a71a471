"""The OpenAPI 3.1 document of /v1, built from its operations and their models. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from services.ingest.gateway import MIN_POSITION, POSITION
from services.ingest.v1.idempotency import HEADER, KEY, REPLAYED
from services.ingest.v1.inputs import PATH_TYPES
from services.ingest.v1.operation import JSON, Operation, Says
from services.ingest.v1.parts import MULTIPART
from services.ingest.v1.places import Word
from services.ingest.v1.problems import KINDS, MEDIA_TYPE, Problem

VERSION = "1.1.0"
"""Raised in its last place for corrections, in its second for additions; the first is that of the path."""
POSITION_PATTERN = "^(pending|[A-Za-z0-9._-]{1,249}:[0-9]{1,9}:[0-9]{1,18})$"
_REF = "#/components/schemas/{model}"
_ALWAYS = (400, 406, 429, 503)
_OF_KNOWN = (401, 403)
_OF_NAMES = (404,)
_OF_BODIES = (408, 413, 415, 507)
_NAMES = re.compile(r"{(\w+)}")
_TEXT = """Datasets, submissions and folds of this installation.

Lists come in pages: follow `next`, or the Link header, until it is absent. Refusals are problems as RFC 9457 has them,
and record nothing. A `Datarun-Position` that a write answers may be sent with a read as `Datarun-Min-Position`: what is
read then is at least as new."""

Document = dict[str, Any]


def build(operations: Iterable[Operation]) -> Document:
    """Return the document."""
    listed = list(operations)
    named, schemas = _schemas(listed)
    paths: Document = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, named)
    return {
        "openapi": "3.1.0",
        "info": {"title": "datarun", "version": VERSION, "description": _TEXT},
        "servers": [{"url": "/"}],
        "security": [{"basic": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer", "description": "See `datarun token add`."},
            },
        },
    }


_Key = tuple[type[BaseModel], JsonSchemaMode]


def _schemas(operations: Iterable[Operation]) -> tuple[dict[_Key, Document], Document]:
    wanted: dict[_Key, None] = {(Problem, "serialization"): None}
    for operation in operations:
        wanted |= {(model, "validation"): None for model in (operation.body, operation.multipart) if model}
        wanted |= {(says.model, "serialization"): None for says in operation.answers.values() if says.model}
    named, definitions = models_json_schema(list(wanted), ref_template=_REF)
    schemas: Document = definitions["$defs"]
    return {key: named[key] for key in wanted}, {name: schemas[name] for name in sorted(schemas)}


def _operation(operation: Operation, named: Mapping[_Key, Document]) -> Document:
    made: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _described(operation),
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _answers(operation, named) | _problems(operation, named),
    }
    if operation.roles is None:
        made["security"] = []
    body = _body(operation, named)
    return made | ({"requestBody": body} if body else {})


def _described(operation: Operation) -> str:
    said = (operation.handle.__doc__ or "").strip()
    roles = "anybody" if operation.roles is None else ", ".join(operation.roles)
    return f"{said} For {roles}."


def _parameters(operation: Operation) -> list[Document]:
    path = operation.example.get("path", {})
    found = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": TypeAdapter(PATH_TYPES[name]).json_schema(),
            "example": path.get(name),
        }
        for name in _NAMES.findall(operation.path)
    ]
    query = operation.query.model_json_schema()
    required = query.get("required", ())
    given = operation.example.get("query", {})
    for name, schema in query.get("properties", {}).items():
        told = {"name": name, "in": "query", "required": name in required, "schema": _without_null(schema)}
        found.append(told | ({"example": given[name]} if name in given else {}))
    if operation.method == "GET" and operation.roles is not None:
        schema = {"type": "string", "pattern": POSITION_PATTERN}
        found.append(_header(MIN_POSITION, "Wait until what is read is as new as this position.", schema))
    if operation.takes_key:
        schema = {"type": "string", "pattern": f"^{KEY.pattern}$"}
        found.append(_header(HEADER, "The same request with the same key has its first answer again.", schema))
    if operation.takes_wait:
        schema = {"type": "string", "pattern": "^wait=[0-9]{1,2}$"}
        found.append(_header("Prefer", "Wait up to so many seconds, 60 at the most, until there is something.", schema))
    if operation.takes_last_id:
        schema = TypeAdapter(Word).json_schema()
        found.append(_header("Last-Event-ID", "Go on behind this event.", schema))
    return found


def _header(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _without_null(schema: Document) -> Document:
    """Return the schema of a parameter: one that is null is not sent."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf" and (name, value) != ("default", None)}
    return rest if not kinds else {**rest, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}


def _body(operation: Operation, named: Mapping[_Key, Document]) -> Document | None:
    model = operation.body or operation.multipart
    if model is None:
        return None
    content: Document = {"schema": named[model, "validation"]}
    if operation.body and "body" in operation.example:
        content["example"] = operation.example["body"]
    media_type = JSON if operation.body else MULTIPART
    return {"required": not operation.body_may_be_absent, "content": {media_type: content}}


def _answers(operation: Operation, named: Mapping[_Key, Document]) -> Document:
    return {str(status): _answer(operation, says, named) for status, says in operation.answers.items()}


def _answer(operation: Operation, says: Says, named: Mapping[_Key, Document]) -> Document:
    schema = named[says.model, "serialization"] if says.model else None
    content = {kind: {"schema": schema} if schema and kind == JSON else {} for kind in says.media_types}
    headers = dict(says.headers)
    if operation.method != "GET":
        headers[POSITION] = "Where the log has it, or `pending`."
    if operation.takes_key:
        headers[REPLAYED] = "Present when this is the first answer to the same key."
    told = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    about: Document = {"description": says.description} | ({"content": content} if content else {})
    return about | ({"headers": told} if told else {})


def _problems(operation: Operation, named: Mapping[_Key, Document]) -> Document:
    has_body = operation.body is not None or operation.multipart is not None
    statuses = {*_ALWAYS, *operation.problems, *(_OF_NAMES if _NAMES.search(operation.path) else ())}
    statuses |= {*(_OF_KNOWN if operation.roles is not None else ()), *(_OF_BODIES if has_body else ())}
    content = {MEDIA_TYPE: {"schema": named[Problem, "serialization"]}}
    return {
        str(status): {"description": f"{KINDS[status].title}.", "content": content}
        for status in sorted(statuses)
        if status not in operation.answers
    }
