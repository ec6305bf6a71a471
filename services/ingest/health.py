"""Whether the service is alive, and whether what it needs is there."""

from __future__ import annotations

import asyncio

from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.errors import BlobsUnavailable, DatabaseUnavailable
from datarun.log.admin import probe
from services.ingest.answers import json_answer
from services.ingest.gateway import GATEWAY, Gateway

PROBE_SECONDS = 2.0
NO_BLOB = "0" * 64
"""No known bytes have this sha256."""


async def healthz(_: web.Request) -> web.StreamResponse:
    """GET /healthz: this process answers."""
    return json_answer({"status": "ok"})


async def readyz(request: web.Request) -> web.StreamResponse:
    """GET /readyz: 200 when Postgres, Kafka and the blob store answer, 503 otherwise, and which one does not."""
    gateway = request.app[GATEWAY]
    postgres, kafka, blobs = await asyncio.gather(
        _postgres_answers(gateway), asyncio.to_thread(_kafka_answers, gateway), _blobs_answer(gateway)
    )
    parts = {"postgres": postgres, "kafka": kafka, "blobs": blobs}
    return json_answer(
        {name: "ok" if answers else "away" for name, answers in parts.items()},
        status=200 if all(parts.values()) else 503,
    )


async def _postgres_answers(gateway: Gateway) -> bool:
    try:
        await gateway.database.run(_look)
    except DatabaseUnavailable:
        return False
    return True


async def _blobs_answer(gateway: Gateway) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await asyncio.to_thread(gateway.blobs.size, NO_BLOB)
    except (BlobsUnavailable, OSError):
        # A TimeoutError is one of them.
        return False
    return True


def _look(cursor: Cursor) -> None:
    cursor.execute("select 1 from intake.account limit 1")


def _kafka_answers(gateway: Gateway) -> bool:
    return probe(gateway.brokers, PROBE_SECONDS)
