"""The interface's own description: the OpenAPI document, and a reference page that needs no other server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import orjson
from aiohttp import web

from services.ingest.v1.inputs import Nothing
from services.ingest.v1.openapi import build
from services.ingest.v1.operation import JSON, Call, Operation, Says

HTML = "text/html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing and runs nothing."""
DOCUMENT = web.AppKey("openapi", bytes)
PAGE = web.AppKey("reference", str)


async def get_openapi(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return the OpenAPI 3.1 document."""
    return web.Response(body=call.request.app[DOCUMENT], content_type=JSON)


async def get_reference(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return the reference page."""
    headers = {"Content-Security-Policy": POLICY}
    return web.Response(text=call.request.app[PAGE], content_type=HTML, headers=headers)


def add_documents(app: web.Application, operations: Iterable[Operation]) -> None:
    """Make the documents of an application's operations."""
    document = build(operations)
    app[DOCUMENT] = orjson.dumps(document)
    app[PAGE] = render(document)


def render(document: dict[str, Any]) -> str:
    """Return a document as a page for people."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = _shown
    environment.filters["kind"] = _kind
    tags: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            told = operation | {"path": path, "method": method.upper()}
            tags.setdefault(operation["tags"][0], []).append(told)
    return environment.get_template("reference.html").render(document=document, tags=tags)


def _shown(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(kind) for kind in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/openapi.json",
        handle=get_openapi,
        summary="Read this document",
        tag="documentation",
        roles=None,
        answers={200: Says("The document.")},
    ),
    Operation(
        method="GET",
        path="/v1/docs",
        handle=get_reference,
        summary="Read the reference page",
        tag="documentation",
        roles=None,
        answers={200: Says("The page.", media_types=(HTML,))},
    ),
)
