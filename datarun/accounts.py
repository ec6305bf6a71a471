"""People's accounts: argon2id by the OWASP profile (19 MiB, two passes, one lane)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import psycopg2
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from psycopg2.extensions import cursor as Cursor

from datarun.db import connect
from datarun.errors import DatabaseUnavailable, DatarunError

ROLES = ("admin", "organiser", "participant", "runner")
MAX_BYTES = 1024
"""Longer passwords are refused before any hashing."""
MAX_NAME_CHARACTERS = 200
"""Events say who asked for what, in a field of this length."""

_hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)


class InvalidAccount(DatarunError):
    """The account cannot be made."""


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """What may be shown of an account."""

    username: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


def add(postgres_url: str, username: str, password: str, role: str = "admin", *, revoked_too: bool = False) -> None:
    """Add an account, or on demand let one that was revoked in again, with a new password and role.

    Raises InvalidAccount for a name that is taken or unfit, DatabaseUnavailable without Postgres.
    """
    _check(username, password, role)
    row = (username, _hasher.hash(password), role, revoked_too)
    with transaction(postgres_url, application="datarun-user") as cursor:
        cursor.execute(
            """
            insert into intake.account (username, password_hash, role) values (%s, %s, %s)
            on conflict (username) do update set
                password_hash = excluded.password_hash, role = excluded.role, created_at = now(), revoked_at = null
                where account.revoked_at is not null and %s""",
            row,
        )
        if cursor.rowcount == 0:
            raise InvalidAccount(f"the account {username} exists already")


def ls(postgres_url: str) -> list[KnownAccount]:
    """Return all accounts by name; raises DatabaseUnavailable."""
    with transaction(postgres_url, application="datarun-user") as cursor:
        cursor.execute("select username, role, created_at, revoked_at from intake.account order by username")
        return [KnownAccount(*row) for row in cursor.fetchall()]


def revoke(postgres_url: str, username: str) -> None:
    """Let an account and its tokens in no more; its name stays taken by its work. Raises InvalidAccount."""
    with transaction(postgres_url, application="datarun-user") as cursor:
        cursor.execute(
            "update intake.account set revoked_at = coalesce(revoked_at, now()) where username = %s", (username,)
        )
        if cursor.rowcount == 0:
            raise InvalidAccount(f"there is no account {username}: see `datarun user ls`")
        cursor.execute(
            "update intake.token set revoked_at = now() where username = %s and revoked_at is null", (username,)
        )


def find(cursor: Cursor, username: str) -> tuple[str, str] | None:
    """Return the password hash and the role of an account that may be let in."""
    cursor.execute(
        "select password_hash, role from intake.account where username = %s and revoked_at is null", (username,)
    )
    return cursor.fetchone()


@contextmanager
def transaction(postgres_url: str, *, application: str) -> Iterator[Cursor]:
    """Open a transaction for a block of code; raises DatabaseUnavailable."""
    try:
        opened = connect(postgres_url, application=application)
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"Postgres does not answer: {error}") from error
    with closing(opened), opened, opened.cursor() as cursor:
        yield cursor


def verify(password_hash: str, password: str) -> bool:
    """Tell whether a password is the hash's; takes tens of milliseconds of a core."""
    try:
        return _hasher.verify(password_hash, password)
    except VerificationError:
        return False


@cache
def nobody() -> str:
    """Return a hash to verify against when there is no such account, so that the answer takes as long."""
    return _hasher.hash("the password of nobody")


def usable(text: str) -> bool:
    """Tell whether a password can belong to any account at all."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_BYTES and "\0" not in text


def usable_name(text: str) -> bool:
    """Tell whether a user name can belong to any account at all."""
    return len(text) <= MAX_NAME_CHARACTERS and usable(text)


def check_name(username: str) -> None:
    """Raise InvalidAccount for a name that no account or token may have."""
    if not usable_name(username) or ":" in username or not username.isprintable():
        raise InvalidAccount(f"a user name is printable, has no colon and at most {MAX_NAME_CHARACTERS} characters")


def _check(username: str, password: str, role: str) -> None:
    check_name(username)
    if not usable(password):
        raise InvalidAccount("a password has 1 to 1024 bytes and no null character")
    if role not in ROLES:
        raise InvalidAccount(f"{role} is not one of {', '.join(ROLES)}")
