"""Who is asking: HTTP Basic against argon2 hashes, or a token; verified credentials are remembered for a while.

argon2 takes tens of milliseconds of a core by design, and clients send their password with every request.
A token may stand in place of the password, so that old clients can use one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from time import monotonic

from datarun import accounts, tokens
from services.ingest.refusals import Refusal, detail

REMEMBERED_SECONDS = 120.0
TOKEN_SECONDS = 5.0
"""How long a revoked token may still be let in."""
REMEMBERED_ACCOUNTS = 1024
CHALLENGE = 'Basic realm="api"'


@dataclass(frozen=True, slots=True)
class Account:
    """An account that proved its password or its token."""

    username: str
    role: str


Lookup = Callable[[str], Awaitable[tuple[str, str] | None]]
"""Returns the password hash and the role of a user name."""
TokenLookup = Callable[[bytes], Awaitable[tuple[str, str] | None]]
"""Returns the user name and the role of a token's digest."""


class Doorkeeper:
    """Knows credentials from strangers; equal credentials that come at once are verified once."""

    def __init__(
        self, lookup: Lookup, lookup_token: TokenLookup, threads: Executor, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._lookup = lookup
        self._lookup_token = lookup_token
        self._threads = threads
        self._clock = clock
        # The key lives in this process alone, so what is remembered says nothing about a password elsewhere.
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, tuple[Account, float]] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[Account | None]] = {}

    async def admit(self, authorization: str | None) -> Account:
        """Return the account of an Authorization header; raises Refusal."""
        token = parse_bearer(authorization)
        if token is not None:
            return await self._admit_token(token)
        username, password = parse_basic(authorization)
        if password.startswith(tokens.MARK):
            return await self._admit_token(password, username)
        if not (accounts.usable(username) and accounts.usable(password)):
            raise _wrong()
        # Not hmac.digest, which gives up the interpreter's lock and waits for it again.
        digest = hmac.new(self._key, f"{len(username)}:{username}:{password}".encode(), hashlib.sha256).digest()
        account = self._remembered(digest) or await self._verify_once(digest, username, password)
        if account is None:
            raise _wrong()
        return account

    async def _admit_token(self, token: str, username: str | None = None) -> Account:
        digest = tokens.digest(token)
        account = self._remembered(digest)
        if account is None:
            known = await self._lookup_token(digest)
            if known is None:
                raise _refused("Invalid token.")
            account = Account(*known)
            self._remember(digest, account, TOKEN_SECONDS)
        if username not in (None, account.username):
            raise _wrong()
        return account

    def _remembered(self, digest: bytes) -> Account | None:
        account, until = self._verified.get(digest, (None, 0.0))
        return account if until > self._clock() else None

    async def _verify_once(self, digest: bytes, username: str, password: str) -> Account | None:
        task = self._pending.get(digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._verify(digest, username, password))
            self._pending[digest] = task
            task.add_done_callback(lambda _: self._pending.pop(digest, None))
        return await asyncio.shield(task)

    async def _verify(self, digest: bytes, username: str, password: str) -> Account | None:
        known = await self._lookup(username)
        loop = asyncio.get_running_loop()
        password_hash = known[0] if known else await loop.run_in_executor(self._threads, accounts.nobody)
        matches = await loop.run_in_executor(self._threads, accounts.verify, password_hash, password)
        if known is None or not matches:
            return None
        account = Account(username, known[1])
        self._remember(digest, account, REMEMBERED_SECONDS)
        return account

    def _remember(self, digest: bytes, account: Account, seconds: float) -> None:
        self._verified[digest] = (account, self._clock() + seconds)
        self._verified.move_to_end(digest)
        while len(self._verified) > REMEMBERED_ACCOUNTS:
            self._verified.popitem(last=False)


def parse_bearer(authorization: str | None) -> str | None:
    """Return the token of an Authorization header, None for what cannot be one."""
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    is_token = scheme.lower() == "bearer" and token.startswith(tokens.MARK) and accounts.usable(token)
    return token if is_token else None


def parse_basic(authorization: str | None) -> tuple[str, str]:
    """Return the user name and password of an Authorization header; raises Refusal."""
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        raise _refused("Authentication credentials were not provided.")
    if not credentials.strip():
        raise _refused("Invalid basic header. No credentials provided.")
    if " " in credentials.strip():
        raise _refused("Invalid basic header. Credentials string should not contain spaces.")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused("Invalid basic header. Credentials not correctly base64 encoded.") from error
    username, _, password = _text(decoded).partition(":")
    return username, password


def _text(decoded: bytes) -> str:
    # Older clients send Latin-1.
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        return decoded.decode("latin-1")


def _wrong() -> Refusal:
    return _refused("Invalid username/password.")


def _refused(text: str) -> Refusal:
    return detail(401, text, WWW_Authenticate=CHALLENGE)
