"""Who is let in: argon2 is asked as rarely as possible, and never for nonsense."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun import accounts, tokens
from services.ingest.auth import (
    FRESH_SECONDS,
    REMEMBERED_ACCOUNTS,
    REMEMBERED_SECONDS,
    Account,
    Doorkeeper,
    _Verified,
    parse_basic,
    parse_bearer,
)
from services.ingest.refusals import Refusal


class Door:
    """A doorkeeper with one account, a clock to set and a count of its look-ups."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.now = 0.0
        self.lookups = 0
        self.known: tuple[str, str] | None = (HASH, "admin")
        self.keeper = Doorkeeper(self.lookup, self.lookup_token, threads, clock=lambda: self.now)

    async def lookup(self, username: str) -> tuple[str, str] | None:
        """Know ada alone."""
        self.lookups += 1
        return self.known if username == "ada" else None

    async def lookup_token(self, digest: bytes) -> tuple[str, str] | None:
        """Know one token of ada alone."""
        self.lookups += 1
        return ("ada", "admin") if digest == tokens.digest(TOKEN) else None

    async def admit(self, username: str, password: str) -> Account:
        """Present credentials."""
        return await self.keeper.admit(basic(f"{username}:{password}"))


TOKEN = tokens.make()
HASH = accounts._hasher.hash("secret")
OTHER_HASH = accounts._hasher.hash("changed")


def basic(text: str) -> str:
    """Return the header's value."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def run(scenario: Callable[[Door], Awaitable[None]]) -> None:
    """Run a scenario with a fresh door."""

    async def started() -> None:
        with ThreadPoolExecutor(2) as threads:
            await scenario(Door(threads))

    asyncio.run(started())


def test_the_hash_is_of_the_profile() -> None:
    """argon2id, 19 MiB, two passes, one lane."""
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert accounts.verify(HASH, "secret")
    assert not accounts.verify(HASH, "Secret")


def test_verified_credentials_are_remembered_for_a_while() -> None:
    """No look-up for some seconds, and no hashing for an hour: guessing under the same name does not matter to them."""

    async def scenario(door: Door) -> None:
        for now, lookups in ((0, 1), (FRESH_SECONDS - 1, 1), (FRESH_SECONDS + 1, 2), (REMEMBERED_SECONDS - 1, 3)):
            door.now = now
            assert await door.admit("ada", "secret") == Account("ada", "admin")
            assert door.lookups == lookups
        for number in range(11):
            with contextlib.suppress(Refusal):
                await door.admit("ada", f"guess {number}")
        assert await door.admit("ada", "secret") == Account("ada", "admin")
        door.now += 2
        with pytest.raises(Refusal, match="429"):
            await door.admit("ada", "secret")

    run(scenario)


def test_a_changed_account_is_noticed_within_seconds() -> None:
    """A new role, a new password, and the end of an account."""

    async def scenario(door: Door) -> None:
        await door.admit("ada", "secret")
        door.known, door.now = (HASH, "participant"), FRESH_SECONDS + 1
        assert await door.admit("ada", "secret") == Account("ada", "participant")
        for known in ((OTHER_HASH, "participant"), None):
            door.known, door.now = known, door.now + FRESH_SECONDS + 1
            with pytest.raises(Refusal, match="Invalid username/password"):
                await door.admit("ada", "secret")

    run(scenario)


def test_wrong_passwords_are_not_looked_at_for_ever() -> None:
    """After ten the answer is 429, of a known name and an unknown one alike; another name is let in."""

    async def scenario(door: Door) -> None:
        for username in ("ada", "bob"):
            statuses = []
            for number in range(12):
                with pytest.raises(Refusal) as refused:
                    await door.keeper.admit(basic(f"{username}:guess {number}"), address=username)
                statuses.append(refused.value.status)
            assert statuses == [401] * 10 + [429] * 2
        assert await door.keeper.admit(basic("ada:secret"), address="elsewhere") == Account("ada", "admin")

    run(scenario)


def test_equal_credentials_that_come_at_once_are_verified_once() -> None:
    """A burst of first requests hashes once."""

    async def scenario(door: Door) -> None:
        await asyncio.gather(*(door.admit("ada", "secret") for _ in range(50)))
        assert door.lookups == 1

    run(scenario)


def test_what_fails_is_never_remembered() -> None:
    """A wrong password is looked at each time, and does not become right beside a right one."""

    async def scenario(door: Door) -> None:
        await door.admit("ada", "secret")
        for username, password in (("ada", "wrong"), ("ada", "wrong"), ("bob", "secret"), ("adas", "ecret")):
            with pytest.raises(Refusal, match="Invalid username/password"):
                await door.admit(username, password)
        assert door.lookups == 5

    run(scenario)


def test_nonsense_is_refused_without_a_lookup() -> None:
    """Null characters and endless passwords cost nothing."""

    async def scenario(door: Door) -> None:
        for username, password in (("a\0", "x"), ("ada", "x\0"), ("ada", "x" * 1025), ("é" * 201, "x"), ("", "x")):
            with pytest.raises(Refusal, match="Invalid username/password"):
                await door.admit(username, password)
        assert door.lookups == 0

    run(scenario)


def test_a_token_is_let_in_and_looked_up_again_soon() -> None:
    """As a bearer or as Basic's password; a revoked one is out within seconds."""

    async def scenario(door: Door) -> None:
        for now, lookups in ((0, 1), (FRESH_SECONDS - 1, 1), (FRESH_SECONDS + 1, 2)):
            door.now = now
            assert await door.keeper.admit(f"Bearer {TOKEN}") == Account("ada", "admin")
            assert await door.admit("ada", TOKEN) == Account("ada", "admin")
            assert door.lookups == lookups

    run(scenario)


def test_a_token_is_nobody_elses() -> None:
    """Neither an unknown token nor another user's name with it is let in."""

    async def scenario(door: Door) -> None:
        for header in (f"Bearer {TOKEN}x", basic(f"bob:{TOKEN}"), basic(f"ada:{TOKEN}x"), f"Basic {TOKEN}"):
            with pytest.raises(Refusal) as refused:
                await door.keeper.admit(header)
            assert refused.value.status == 401

    run(scenario)


def test_what_is_remembered_is_bounded() -> None:
    """The oldest credentials make room."""

    async def scenario(door: Door) -> None:
        verified = door.keeper._verified
        for number in range(REMEMBERED_ACCOUNTS):
            verified[str(number).encode()] = _Verified(Account("x", "admin"), "", 1.0, 1.0)
        await door.admit("ada", "secret")
        assert len(verified) == REMEMBERED_ACCOUNTS
        assert b"0" not in verified

    run(scenario)


@given(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters=":")),
    st.text(st.characters(exclude_categories=("Cs",))),
)
def test_credentials_come_back(username: str, password: str) -> None:
    """Any user name without a colon and any password are read as they were sent."""
    assert parse_basic(basic(f"{username}:{password}")) == (username, password)


@given(st.none() | st.text())
def test_any_header_is_credentials_or_refused(header: str | None) -> None:
    """Nothing but a Refusal comes of a bad header."""
    status = 401
    try:
        assert parse_bearer(header) is None
        parse_basic(header)
    except Refusal as refusal:
        status = refusal.status
    assert status == 401
