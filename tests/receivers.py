"""A real receiver of webhooks: a server on this machine that keeps what it gets and answers as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]

    @property
    def told(self) -> Any:
        """Its body."""
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """What its body says of the event."""
        return self.told["data"]

    def is_signed_with(self, secret: str) -> bool:
        """Tell whether one of its signatures is made with a secret, computed here once more."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        told = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        due = "v1," + base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()
        return due in self.headers["webhook-signature"].split(" ")


Answer = Callable[[Received], "int | tuple[int, dict[str, str], bytes] | None"]


def taken(_: Received) -> int:
    """Answer as a receiver that takes everything."""
    return 204


@dataclass
class Receiver:
    """A running receiver; `answer` returns a status, or None to close the connection without a word."""

    url: str = ""
    answer: Answer = taken
    got: list[Received] = field(default_factory=list)

    def of_fold(self, fold_id: int) -> list[Received]:
        """Return what it got of a fold."""
        return [one for one in list(self.got) if one.data.get("fold_id") == fold_id]

    def wait(self, count: int, *, fold_id: int | None = None, seconds: float = 30.0) -> list[Received]:
        """Return what it got once it is so much."""
        deadline = time.monotonic() + seconds
        while len(found := list(self.got) if fold_id is None else self.of_fold(fold_id)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} after {seconds} s"
            time.sleep(0.02)
        return found


@contextmanager
def running_receiver(answer: Answer = taken) -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver(answer=answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.got.append(received)
            said = receiver.answer(received)
            if said is None:
                self.close_connection = True
                return
            status, headers, content = said if isinstance(said, tuple) else (said, {}, b"")
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of connections that were cut."""

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
