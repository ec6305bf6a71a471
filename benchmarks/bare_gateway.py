"""The least a gateway could do, to be measured beside the real one: produce what came, or decode it, and answer.

Run as `python -m benchmarks.bare_gateway KAFKA TOPIC`; prints its port.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import zlib

import uvloop
from aiohttp import web

from datarun.log import Record
from datarun.log.kafka import KafkaLog


def make_app(log: KafkaLog, topic: str) -> web.Application:
    """Return the service; its answers hold nothing."""

    async def produce(request: web.Request) -> web.Response:
        body = await request.read()
        key = str(json.loads(body)["databoard_sf_id"]).encode()
        await asyncio.wrap_future(log.append(Record(topic, key, body, ())))
        return web.json_response({}, status=201)

    async def decode(request: web.Request) -> web.Response:
        body = await request.read()
        files = json.loads(body)["files"].values()
        size = await asyncio.to_thread(lambda: sum(len(zlib.decompress(base64.b64decode(text))) for text in files))
        return web.json_response({"size": size}, status=201)

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.post("/produce", produce), web.post("/decode", decode)])
    return app


async def serve(kafka: str, topic: str) -> None:
    """Serve until killed."""
    runner = web.AppRunner(make_app(KafkaLog(kafka), topic), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        running.run(serve(*sys.argv[1:3]))
