"""People's accounts: argon2id by the OWASP profile (19 MiB, two passes, one lane)."""

from __future__ import annotations

from functools import cache

import psycopg2
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from datarun.db import connect
from datarun.errors import DatabaseUnavailable, DatarunError

ROLES = ("admin", "organiser", "participant", "runner")
MAX_BYTES = 1024
"""Longer user names and passwords are refused before any hashing."""

_hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)


class InvalidAccount(DatarunError):
    """The account cannot be made."""


def add(postgres_url: str, username: str, password: str, role: str = "admin") -> None:
    """Add an account; raises InvalidAccount for a name that is taken or unfit, DatabaseUnavailable without Postgres."""
    _check(username, password, role)
    row = (username, _hasher.hash(password), role)
    try:
        connection = connect(postgres_url, application="datarun-user")
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(f"Postgres does not answer: {error}") from error
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "insert into intake.account (username, password_hash, role) values (%s, %s, %s) on conflict do nothing",
                row,
            )
            if cursor.rowcount == 0:
                raise InvalidAccount(f"the account {username} exists already")
    finally:
        connection.close()


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
    """Tell whether a user name or password can belong to any account at all."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_BYTES and "\0" not in text


def _check(username: str, password: str, role: str) -> None:
    if not usable(username) or ":" in username or not username.isprintable():
        raise InvalidAccount("a user name is printable, has no colon and at most 1024 bytes")
    if not usable(password):
        raise InvalidAccount("a password has 1 to 1024 bytes and no null character")
    if role not in ROLES:
        raise InvalidAccount(f"{role} is not one of {', '.join(ROLES)}")
