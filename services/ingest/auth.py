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
from services.ingest.throttle import Throttle

REMEMBERED_SECONDS = 3600.0
FRESH_SECONDS = 5.0
"""How long a revoked token or account, or a changed role, may still be let in as before."""
REMEMBERED_ACCOUNTS = 1024
PARTICIPANT = "participant"
CHALLENGE = 'Basic realm="api"'


@dataclass(frozen=True, slots=True)
class Account:
    """An account that proved its password or its token."""

    username: str
    role: str

    @property
    def only(self) -> str | None:
        """Whose work alone it may see and touch; None for all."""
        return self.username if self.role == PARTICIPANT else None


Lookup = Callable[[str], Awaitable[tuple[str, str] | None]]
"""Returns the password hash and the role of a user name."""
TokenLookup = Callable[[bytes], Awaitable[tuple[str, str] | None]]
"""Returns the user name and the role of a token's digest."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """Credentials that were right: what for, by which hash, and until when nobody need look."""

    account: Account
    password_hash: str
    fresh_until: float
    until: float


class Doorkeeper:
    """Knows credentials from strangers; equal credentials that come at once are verified once."""

    def __init__(
        self, lookup: Lookup, lookup_token: TokenLookup, threads: Executor, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self._lookup = lookup
        self._lookup_token = lookup_token
        self._threads = threads
        self._clock = clock
        self._throttle = Throttle(clock)
        # The key lives in this process alone, so what is remembered says nothing about a password elsewhere.
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._pending: dict[bytes, asyncio.Task[Account | None]] = {}

    async def admit(self, authorization: str | None, *, address: str = "") -> Account:
        """Return the account of an Authorization header that came from an address; raises Refusal."""
        token = parse_bearer(authorization)
        if token is not None:
            return await self._admit_token(token)
        username, password = parse_basic(authorization)
        if password.startswith(tokens.MARK):
            return await self._admit_token(password, username)
        if not (accounts.usable_name(username) and accounts.usable(password)):
            raise _wrong()
        # Not hmac.digest, which gives up the interpreter's lock and waits for it again.
        digest = hmac.new(self._key, f"{len(username)}:{username}:{password}".encode(), hashlib.sha256).digest()
        account = self._fresh(digest) or await self._verify_once(digest, username, password, address)
        if account is None:
            raise _wrong()
        return account

    async def _admit_token(self, token: str, username: str | None = None) -> Account:
        digest = tokens.digest(token)
        account = self._fresh(digest)
        if account is None:
            known = await self._lookup_token(digest)
            if known is None:
                raise _refused("Invalid token.")
            account = Account(*known)
            self._remember(digest, account, "")
        if username not in (None, account.username):
            raise _wrong()
        return account

    def _fresh(self, digest: bytes) -> Account | None:
        verified = self._verified.get(digest)
        return verified.account if verified is not None and verified.fresh_until > self._clock() else None

    async def _verify_once(self, digest: bytes, username: str, password: str, address: str) -> Account | None:
        task = self._pending.get(digest)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._verify(digest, username, password, address))
            self._pending[digest] = task
            task.add_done_callback(lambda _: self._pending.pop(digest, None))
        return await asyncio.shield(task)

    async def _verify(self, digest: bytes, username: str, password: str, address: str) -> Account | None:
        known = await self._lookup(username)
        # What is remembered as right is no guess.
        is_guess = known is None or not self._is_remembered(digest, known[0])
        if is_guess and not await self._try(known, username, password, address):
            return None
        return self._remember(digest, Account(username, known[1]), known[0]) if known else None

    def _is_remembered(self, digest: bytes, password_hash: str) -> bool:
        verified = self._verified.get(digest)
        return verified is not None and verified.until > self._clock() and verified.password_hash == password_hash

    async def _try(self, known: tuple[str, str] | None, username: str, password: str, address: str) -> bool:
        guess = self._throttle.begin(username, address)
        loop = asyncio.get_running_loop()
        try:
            password_hash = known[0] if known else await loop.run_in_executor(self._threads, accounts.nobody)
            matches = await loop.run_in_executor(self._threads, accounts.verify, password_hash, password)
        except BaseException:
            guess.untold()
            raise
        if known is None or not matches:
            return False
        guess.right()
        return True

    def _remember(self, digest: bytes, account: Account, password_hash: str) -> Account:
        now = self._clock()
        verified = self._verified.get(digest)
        # Looked up again, it lasts no longer than from its verification.
        is_same = verified is not None and verified.password_hash == password_hash and verified.until > now
        until = verified.until if verified is not None and is_same else now + REMEMBERED_SECONDS
        self._verified[digest] = _Verified(account, password_hash, min(until, now + FRESH_SECONDS), until)
        self._verified.move_to_end(digest)
        while len(self._verified) > REMEMBERED_ACCOUNTS:
            self._verified.popitem(last=False)
        return account


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
