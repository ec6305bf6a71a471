"""API tokens: random, stored as their sha256, shown once; a token costs a lookup where a password costs argon2."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor

from datarun.accounts import ROLES, InvalidAccount, check_name, transaction
from datarun.errors import DatarunError

MARK = "dr_"
"""What every token begins with, so that people and scanners know one when they see it."""
SHOWN_CHARACTERS = 11
_RANDOM_BYTES = 32


class UnknownToken(DatarunError):
    """There is no such token."""


@dataclass(frozen=True, slots=True)
class Token:
    """What may be shown of a token."""

    prefix: str
    username: str
    role: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def make() -> str:
    """Return a new token; it is worth nothing before `add`."""
    return MARK + secrets.token_urlsafe(_RANDOM_BYTES)


def add(postgres_url: str, token: str, username: str, *, role: str | None = None, days: int | None = None) -> None:
    """Store a token, valid for so many days or until it is revoked; storing it again changes nothing.

    The role is that of the account of this name; a name without an account needs one here. Raises InvalidAccount.
    """
    check_name(username)
    with transaction(postgres_url, application="datarun-token") as cursor:
        cursor.execute("select role from intake.account where username = %s and revoked_at is null", (username,))
        known = cursor.fetchone()
        if role is None and known is None:
            raise InvalidAccount(f"there is no account {username}: add one, or give the token a --role")
        if role is not None and role not in ROLES:
            raise InvalidAccount(f"{role} is not one of {', '.join(ROLES)}")
        if known is not None and role not in (None, known[0]):
            raise InvalidAccount(f"the role of {username} is {known[0]}, and so is that of its tokens")
        cursor.execute(
            """
            insert into intake.token (token_sha256, prefix, username, role, expires_at)
            values (%s, %s, %s, %s, now() + make_interval(days => %s)) on conflict do nothing""",
            (digest(token), token[:SHOWN_CHARACTERS], username, role or (known and known[0]), days),
        )


def ls(postgres_url: str) -> list[Token]:
    """Return all tokens, the newest first."""
    with transaction(postgres_url, application="datarun-token") as cursor:
        cursor.execute(
            """
            select prefix, username, role, created_at, expires_at, revoked_at
            from intake.token order by created_at desc, prefix"""
        )
        return [Token(*row) for row in cursor.fetchall()]


def revoke(postgres_url: str, prefix: str) -> None:
    """End the one token that begins like this; raises UnknownToken for none, or several."""
    with transaction(postgres_url, application="datarun-token") as cursor:
        cursor.execute(
            "update intake.token set revoked_at = coalesce(revoked_at, now()) where starts_with(prefix, %s)",
            (prefix[:SHOWN_CHARACTERS],),
        )
        if cursor.rowcount != 1:
            found = "several tokens begin" if cursor.rowcount else "no token begins"
            cursor.connection.rollback()
            raise UnknownToken(f"{found} with {prefix[:SHOWN_CHARACTERS]}: see `datarun token ls`")


def find(cursor: Cursor, token_sha256: bytes) -> tuple[str, str] | None:
    """Return the user name and role of a token that is valid now."""
    cursor.execute(
        """
        select t.username, coalesce(a.role, t.role)
        from intake.token t left join intake.account a on a.username = t.username
        where t.token_sha256 = %s and t.revoked_at is null and (t.expires_at is null or t.expires_at > now())
          and a.revoked_at is null""",
        (token_sha256,),
    )
    return cursor.fetchone()


def digest(token: str) -> bytes:
    """Return what is stored of a token; 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
