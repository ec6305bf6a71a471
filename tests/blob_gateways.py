"""A real gateway, for blobs alone, and a wire to it that can be cut, as tests of runners on other hosts need them."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from datarun import tokens
from datarun.blob_cache import BlobCache
from datarun.gateway_client import GatewayClient
from datarun.http_blobs import HttpBlobs
from tests.gateways import running_gateway


@dataclass
class BlobGateway:
    """A gateway, its blob folder, and a runner's token."""

    url: str
    folder: Path
    token: str
    postgres_url: str

    def request(self, method: str, name: str, **options: Any) -> requests.Response:
        """Ask for a blob by its sha256, or a path below /blobs/."""
        headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return requests.request(method, f"{self.url}/blobs/{name}", headers=headers, timeout=30, **options)

    def put(self, content: bytes) -> str:
        """Store bytes and return their sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        assert self.request("PUT", sha256, data=content).status_code in (200, 201)
        return sha256

    def store(self, cache: Path, *, capacity_bytes: int = 1 << 30, url: str | None = None) -> HttpBlobs:
        """Return the store as a runner has it."""
        return HttpBlobs(GatewayClient(url or self.url, self.token), BlobCache(cache, capacity_bytes=capacity_bytes))

    def files(self) -> list[Path]:
        """Return every file in the blob folder."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def blob_gateway(folder: Path, kafka: str, postgres_url: str, **environment: str) -> Iterator[BlobGateway]:
    """Run a gateway for blobs."""
    blobs, token = folder / "gateway-blobs", tokens.make()
    blobs.mkdir(exist_ok=True)
    tokens.add(postgres_url, token, "runner-1", role="runner")
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs.as_uri(), "prefix": "unused."}
    with running_gateway(folder / "gateway", **servers, **environment) as gateway:
        yield BlobGateway(gateway.url, blobs, token, postgres_url)


@dataclass
class Wire:
    """A TCP proxy; each of the next connections is cut, or hangs, after so many bytes of answer."""

    target: tuple[str, int]
    cuts: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    made: int = 0
    passed: int = 0
    _open: threading.Event = field(default_factory=threading.Event)
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def url(self) -> str:
        """Where the gateway seems to be."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def serve(self) -> None:
        """Accept until closed."""
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.made += 1
            hangs = self._open if self.stalls and not self.cuts else None
            limits = self.cuts or self.stalls
            left = limits.pop(0) if limits else None
            threading.Thread(target=self._join, args=(client, left, hangs), daemon=True).start()

    def _join(self, client: socket.socket, left: int | None, hangs: threading.Event | None) -> None:
        server = socket.create_connection(self.target)
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        with suppress(OSError):
            while left != 0 and (data := server.recv(min(left, 1 << 16) if left is not None else 1 << 16)):
                client.sendall(data)
                self.passed += len(data)
                left = left - len(data) if left is not None else None
            if hangs:
                hangs.wait()
        _close(server, client)

    def close(self) -> None:
        """Accept no more, and let go of what hangs."""
        self._open.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _close(source, target)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def wire(url: str) -> Iterator[Wire]:
    """Lead through a proxy to a gateway."""
    parts = urlsplit(url)
    proxy = Wire((str(parts.hostname), int(parts.port or 0)))
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
