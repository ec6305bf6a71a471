"""Posting to receivers: one try within a bound of time, to allowed addresses alone, its answer's body not kept."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from datarun.settings import WebhookSettings
from services.ingest.v1.webhooks.addresses import NotAllowed, is_allowed
from services.ingest.v1.webhooks.signing import headers

AGENT = "datarun-webhooks"
MOST_ANSWER_BYTES = 64 * 1024
"""An answer with a longer body costs its connection."""
CONNECT_SECONDS = 5.0
KEEP_SECONDS = 2.0
"""Less than receivers keep a connection; one that closes it just then costs a try."""
LOOK_UP_THREADS = 32
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is posted; the same bytes under the same id, however often."""

    id: str
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a try: the answer's status if there was one, and what was wrong."""

    status: int | None
    error: str | None
    seconds: float
    retry_after: float | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.error is None


class Receivers:
    """Connections to receivers, kept open for a moment; nobody waits for another receiver than its own."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._resolver = _Resolver()
        connector = aiohttp.TCPConnector(
            limit=0, resolver=self._resolver, socket_factory=self._socket, keepalive_timeout=KEEP_SECONDS
        )
        seconds = settings.timeout_seconds
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=seconds, connect=min(seconds, CONNECT_SECONDS)),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What was packed to burst is not unpacked.
            auto_decompress=False,
            headers={"User-Agent": AGENT},
        )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()
        await self._resolver.close()

    async def post(self, url: str, secrets: list[bytes], message: Message) -> Outcome:
        """Post a message once; whatever the receiver does, an outcome within the bound."""
        began = time.monotonic()
        proof = headers(secrets, message_id=message.id, timestamp=int(time.time()), body=message.body)
        told = {"Content-Type": "application/json", **proof}
        status: int | None = None
        retry_after: float | None = None
        try:
            async with self._session.post(url, data=message.body, headers=told, allow_redirects=False) as answer:
                status, retry_after = answer.status, _seconds(answer.headers.get("Retry-After"))
                error = None if _is_taken(status) else f"It answered {status}."
                await _pass_over(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
            # The answer counts once its head is there, whatever becomes of its body.
            error = None if _is_taken(status) else _told(failure)
        return Outcome(status=status, error=error, seconds=time.monotonic() - began, retry_after=retry_after)

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), self._settings.networks):
            raise NotAllowed("the address is not allowed")
        return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(AbstractResolver):
    """Looks names up in threads of its own: one whose server never answers holds up nothing else of the gateway."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="look-up")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


_Found = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]]


def _look_up(host: str, port: int, family: socket.AddressFamily) -> _Found:
    return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)  # type: ignore[return-value]


def _is_taken(status: int | None) -> bool:
    return status is not None and 200 <= status < 300  # noqa: PLR2004 - as HTTP has it


async def _pass_over(answer: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be used again; a long one is cut."""
    left = MOST_ANSWER_BYTES
    while left > 0 and (part := await answer.content.read(left)):
        left -= len(part)
    if left <= 0:
        answer.close()


_FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "It did not answer in time."),
    (aiohttp.ClientConnectorDNSError, "Its name is not known."),
    (ssl.SSLError, "Its TLS or its certificate is not accepted."),
    (aiohttp.ClientConnectorError, "It does not take connections."),
    (aiohttp.ClientConnectionError, "It closed the connection."),
    (ConnectionError, "It closed the connection."),
)


def _told(failure: Exception) -> str:
    """Say what failed, without a word of what its name was resolved to."""
    if isinstance(failure, aiohttp.ClientConnectorError) and isinstance(failure.os_error, NotAllowed):
        return "Its address is not one that webhooks may be sent to."
    return next((text for kind, text in _FAILURES if isinstance(failure, kind)), "It did not answer as HTTP has it.")


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else None  # noqa: PLR2004
