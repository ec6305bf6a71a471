"""Clients that are slow, silent or many, on purpose: they are cut off, and others are served as ever."""

from __future__ import annotations

import base64
import json
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from datarun.log.admin import create_topics
from services.ingest.guard import BODY_SECONDS, HEAD_SECONDS, MOST_PER_ADDRESS
from tests.gateways import CSV, USER, Gateway, packed, pretend_projected, running_gateway

LATE_SECONDS = 1.0
"""How much later than its time something may be noticed: half a second, and a busy machine."""
SLOW, IDLE, BUSY, OTHER = (f"127.0.0.{number}" for number in (11, 12, 13, 14))
"""Addresses of clients, each of which has its own bound."""
OK = b'{"status":"ok"}'


Timed = tuple[bytes, float]
"""What came until the other side closed, and how long that took."""


@dataclass
class Slow:
    """What became of the slow clients, all of which began at the same time."""

    heads: list[Future[Timed]]
    bodies: list[Future[Timed]]
    upload: Future[bytes]


@pytest.fixture(scope="module")
def gateway(
    kafka: str,
    fresh_database: Callable[[], AbstractContextManager[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """Run one gateway for all clients."""
    folder, prefix = tmp_path_factory.mktemp("slow"), f"t{uuid.uuid4().hex[:8]}."
    (folder / "blobs").mkdir()
    create_topics(kafka, prefix=prefix)
    with fresh_database() as url:
        pretend_projected(url, prefix)
        servers = {"kafka": kafka, "postgres_url": url, "blobs_url": (folder / "blobs").as_uri(), "prefix": prefix}
        with running_gateway(folder / "gateway", **servers) as running:
            yield running


@pytest.fixture(scope="module", autouse=True)
def slow(gateway: Gateway) -> Iterator[Slow]:
    """Start every client that takes its time at once, so that their times are waited for once."""
    assert gateway.get("rawdata/").status_code == 200
    with ThreadPoolExecutor(16) as threads:
        yield Slow(
            heads=[threads.submit(_timed, connection) for connection in _half_heads(gateway)],
            bodies=[threads.submit(_timed, connection) for connection in _half_bodies(gateway)],
            upload=threads.submit(_upload_slowly, gateway),
        )


def _connect(gateway: Gateway, *, source: str) -> socket.socket:
    parts = urlsplit(gateway.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60, source_address=(source, 0))


def _head(length: int, *lines: str) -> bytes:
    credentials = base64.b64encode(":".join(USER).encode()).decode()
    fixed = ("POST /runapp/rawdata/ HTTP/1.1", "Host: x", f"Authorization: Basic {credentials}")
    return "\r\n".join([*fixed, "Content-Type: application/json", f"Content-Length: {length}", *lines, "", ""]).encode()


def _read_to_end(connection: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def _timed(connection: socket.socket) -> Timed:
    started = time.monotonic()
    with connection:
        return _read_to_end(connection), time.monotonic() - started


def _dribble(connection: socket.socket, content: bytes, pause: float) -> None:
    """Send byte by byte until it is all sent or refused."""
    with suppress(OSError):
        for value in content:
            connection.sendall(bytes([value]))
            time.sleep(pause)


def _half_heads(gateway: Gateway) -> list[socket.socket]:
    begun = [_connect(gateway, source=SLOW) for _ in range(5)]
    begun[1].sendall(b"POST /run")
    begun[2].sendall(_head(10)[:-2])
    threading.Thread(target=_dribble, args=(begun[3], _head(10), 0.2), daemon=True).start()
    # The second request of a connection has the same time, from its first byte on.
    begun[4].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun[4].recv(65536).endswith(b'{"status":"ok"}')
    begun[4].sendall(b"GET /healthz HT")
    return begun


def test_half_a_head_is_closed(slow: Slow) -> None:
    """Nothing at all, half a line, a head without its end, and one byte after the other: closed within ten seconds."""
    for answer, seconds in (future.result() for future in slow.heads):
        assert answer == b""
        assert HEAD_SECONDS - 1 < seconds < HEAD_SECONDS + LATE_SECONDS


def _half_bodies(gateway: Gateway) -> list[socket.socket]:
    begun = [_connect(gateway, source=SLOW) for _ in range(4)]
    for connection in begun[:3]:
        connection.sendall(_head(1000))
    begun[1].sendall(b'{"name": ')
    threading.Thread(target=_dribble, args=(begun[2], b" " * 1000, 0.1), daemon=True).start()
    begun[3].sendall(_head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"3\r\n{  \r\n")
    return begun


def test_half_a_body_is_answered_408(slow: Slow) -> None:
    """A body that stops, comes byte by byte or is never sent is given up within 30 s, in plain and in chunks."""
    for answer, seconds in (future.result() for future in slow.bodies):
        assert answer.startswith(b"HTTP/1.1 408")
        assert answer.endswith(b'{"detail":"Request not received in time."}')
        assert BODY_SECONDS - 1 < seconds < 30


def _upload_slowly(gateway: Gateway) -> bytes:
    """Upload for longer than any of the times above, at a kilobyte a second with pauses."""
    fields = {"name": "slow line", "target_column": "species", "workflow_elements": "classifier"}
    body = json.dumps(fields | {"files": {"a.csv": packed(CSV)}}).encode()
    body += b" " * (26_000 - len(body))
    with _connect(gateway, source=SLOW) as connection:
        connection.sendall(_head(len(body), "Connection: close"))
        started = time.monotonic()
        while body:
            connection.sendall(body[:4000])
            body = body[4000:]
            time.sleep(4 if body else 0)
        assert time.monotonic() - started > BODY_SECONDS
        return _read_to_end(connection)


def test_an_honest_upload_over_a_slow_line_is_not_touched(slow: Slow) -> None:
    """However long it takes, what makes progress is accepted."""
    assert slow.upload.result().startswith(b"HTTP/1.1 201")


def test_a_thousand_idle_connections_are_nothing_to_others(gateway: Gateway) -> None:
    """From their address and from another one requests are answered at once, and then the idle ones are closed."""
    with ExitStack() as stack:
        idle = [stack.enter_context(_connect(gateway, source=IDLE)) for _ in range(MOST_PER_ADDRESS)]
        for source in (IDLE, OTHER):
            for _ in range(20):
                assert _ask(gateway, source) == OK
        # The oldest made room for those that came from their own address.
        closed, _, _ = select.select(idle[:100], [], [], 0)
        assert closed
        assert closed == idle[: len(closed)]
        assert all(_read_to_end(connection) == b"" for connection in idle)


def test_connections_that_are_all_busy_make_no_room(gateway: Gateway) -> None:
    """One more from their address is refused, one from elsewhere served; afterwards there is room again."""
    with ExitStack() as stack:
        busy = [stack.enter_context(_connect(gateway, source=BUSY)) for _ in range(MOST_PER_ADDRESS)]
        for connection in busy:
            connection.sendall(_head(10, "Expect: 100-continue"))
        for connection in busy:
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        assert _ask(gateway, BUSY) == b""
        assert _ask(gateway, OTHER) == OK
    for _ in range(100):
        if _ask(gateway, BUSY) == OK:
            return
        time.sleep(0.1)
    pytest.fail("there is still no room")


def _ask(gateway: Gateway, source: str) -> bytes:
    """Return the end of the answer to a plain request, nothing if there is none."""
    with _connect(gateway, source=source) as connection:
        with suppress(OSError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return _read_to_end(connection)[-len(OK) :]


def test_pipelined_garbage_is_refused_and_closed(gateway: Gateway) -> None:
    """It gets one 400, after the answers to what was good before it, and nothing after it is looked at."""
    good = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for garbage in (b"\0\1\2\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 20_000):
        with _connect(gateway, source=OTHER) as connection:
            with suppress(ConnectionError):
                connection.sendall(good * 3 + garbage + good * 3)
            answer = _read_to_end(connection)
        assert answer.count(OK) <= 3
        assert answer.count(b" 400 Bad Request") == 1
        assert answer.find(OK, answer.index(b" 400 Bad Request")) == -1
    assert gateway.get("rawdata/").status_code == 200


def test_many_pipelined_requests_are_all_answered(gateway: Gateway) -> None:
    """However fast they come, none is lost, and no more of them are held than are answered soon."""
    with _connect(gateway, source=OTHER) as connection, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(_read_to_end, connection)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert reading.result(60).count(OK) == 5001


def test_a_refused_upload_is_told_so_although_it_goes_on_sending(gateway: Gateway) -> None:
    """Who sends megabytes without credentials reads its 401, not a broken connection."""
    answer: Any = requests.post(f"{gateway.url}/runapp/rawdata/", data=bytes(20 << 20), timeout=30)
    assert answer.status_code == 401
