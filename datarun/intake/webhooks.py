"""Webhooks, as named statements: who wants to be told what, with which secret, and whether it works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2.extensions import cursor as Cursor

OLD_SECRET_HOURS = 24
"""How long messages are signed with the secret before, too."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of which events a webhook is told: of some kinds, perhaps of one dataset, submission or fold alone."""

    kinds: Sequence[str]
    raw_data_id: int | None = None
    submission_id: int | None = None
    fold_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook as it is stored."""

    webhook_id: int
    username: str
    url: str
    description: str
    wanted: Wanted
    secrets: Sequence[bytes] = field(repr=False)
    """The newest first, then the one before while it still holds."""
    offsets: list[int]
    generation: int
    attempts: int
    failing_since: datetime | None
    next_try_at: datetime | None
    pause_seconds: float
    """How long until the next try, by the database's clock."""
    last_error: str | None
    delivered_at: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime


_COLUMNS = """
    w.webhook_id, w.username, w.url, w.description, w.kinds, w.raw_data_id, w.submission_id, w.fold_id, w.secret,
    case when w.old_secret_until > now() then w.old_secret end, w.offsets, w.generation, w.attempts, w.failing_since,
    w.next_try_at, coalesce(extract(epoch from w.next_try_at - now()), 0)::float8, w.last_error, w.delivered_at,
    w.disabled_at, w.disabled_reason, w.created_at"""
_REST = (
    "offsets", "generation", "attempts", "failing_since", "next_try_at", "pause_seconds", "last_error", "delivered_at",
    "disabled_at", "disabled_reason", "created_at",
)  # fmt: skip
_OWN = "(%(only_of)s::text is null or w.username = %(only_of)s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """A webhook to be, which begins behind a place."""

    username: str
    url: str
    description: str
    wanted: Wanted
    secret: bytes = field(repr=False)
    offsets: list[int]


def create(cursor: Cursor, new: New) -> Webhook:
    """Store a new webhook."""
    cursor.execute(
        f"""
        insert into intake.webhook as w
            (username, url, description, kinds, raw_data_id, submission_id, fold_id, secret, offsets)
        values (%s, %s, %s, %s::text[], %s, %s, %s, %s, %s::bigint[]) returning {_COLUMNS}""",  # noqa: S608 - our own
        (
            new.username,
            new.url,
            new.description,
            list(new.wanted.kinds),
            new.wanted.raw_data_id,
            new.wanted.submission_id,
            new.wanted.fold_id,
            new.secret,
            new.offsets,
        ),
    )
    [made] = _found(cursor)
    return made


def count_of(cursor: Cursor, username: str) -> int:
    """Return how many webhooks an account has."""
    cursor.execute("select count(*) from intake.webhook where username = %s", (username,))
    [(count,)] = cursor.fetchall()
    return int(count)


def find(cursor: Cursor, webhook_id: int, *, only_of: str | None) -> Webhook | None:
    """Return a webhook, if it is of an account when one is named."""
    cursor.execute(
        f"select {_COLUMNS} from intake.webhook w where webhook_id = %(id)s and {_OWN}",  # noqa: S608 - our own
        {"id": webhook_id, "only_of": only_of},
    )
    return next(iter(_found(cursor)), None)


def ls(cursor: Cursor, *, only_of: str | None, after: int, limit: int) -> list[Webhook]:
    """Return webhooks by number, of an account when one is named."""
    cursor.execute(
        f"""
        select {_COLUMNS} from intake.webhook w where webhook_id > %(after)s and {_OWN}
        order by webhook_id limit %(limit)s""",  # noqa: S608 - our own
        {"after": after, "limit": limit, "only_of": only_of},
    )
    return _found(cursor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be otherwise; None leaves it as it is."""

    url: str | None = None
    description: str | None = None
    kinds: Sequence[str] | None = None
    offsets: list[int] | None = None
    is_enabled: bool | None = None
    reason: str = ""
    """Why it is disabled."""


def change(cursor: Cursor, webhook_id: int, wanted: Change, *, only_of: str | None) -> Webhook | None:
    """Change a webhook; whatever failed before, it is tried at once."""
    cursor.execute(
        f"""
        update intake.webhook as w set
            url = coalesce(%(url)s, url), description = coalesce(%(description)s, description),
            kinds = coalesce(%(kinds)s::text[], kinds), offsets = coalesce(%(offsets)s::bigint[], offsets),
            generation = generation + 1, attempts = 0, failing_since = null, next_try_at = null, last_error = null,
            disabled_at = case %(enabled)s::boolean
                when true then null when false then coalesce(disabled_at, now()) else disabled_at end,
            disabled_reason = case %(enabled)s::boolean
                when true then null when false then coalesce(disabled_reason, %(reason)s) else disabled_reason end
        where webhook_id = %(id)s and {_OWN} returning {_COLUMNS}""",  # noqa: S608 - our own
        {
            "id": webhook_id,
            "only_of": only_of,
            "url": wanted.url,
            "description": wanted.description,
            "kinds": None if wanted.kinds is None else list(wanted.kinds),
            "offsets": wanted.offsets,
            "enabled": wanted.is_enabled,
            "reason": wanted.reason,
        },
    )
    return next(iter(_found(cursor)), None)


def rotate(cursor: Cursor, webhook_id: int, secret: bytes, *, only_of: str | None) -> Webhook | None:
    """Give a webhook another secret; the one before holds for a day beside it."""
    cursor.execute(
        f"""
        update intake.webhook as w set
            secret = %(secret)s, old_secret = secret, old_secret_until = now() + make_interval(hours => %(hours)s)
        where webhook_id = %(id)s and {_OWN} returning {_COLUMNS}""",  # noqa: S608 - our own
        {"id": webhook_id, "only_of": only_of, "secret": secret, "hours": OLD_SECRET_HOURS},
    )
    return next(iter(_found(cursor)), None)


def delete(cursor: Cursor, webhook_id: int, *, only_of: str | None) -> bool:
    """Forget a webhook and what was tried of it; False if there is none."""
    cursor.execute(
        f"delete from intake.webhook w where webhook_id = %(id)s and {_OWN}",  # noqa: S608 - our own
        {"id": webhook_id, "only_of": only_of},
    )
    if not cursor.rowcount:
        return False
    cursor.execute("delete from intake.webhook_delivery where webhook_id = %s", (webhook_id,))
    return True


def any_active(cursor: Cursor) -> bool:
    """Tell whether a webhook is not disabled."""
    cursor.execute("select exists (select from intake.webhook where disabled_at is null)")
    [(found,)] = cursor.fetchall()
    return bool(found)


def active(cursor: Cursor) -> list[tuple[Webhook, str | None]]:
    """Return the webhooks that are not disabled, each with the role its account has now, None for none any more."""
    cursor.execute(
        f"""
        select {_COLUMNS}, case when a.revoked_at is null then coalesce(a.role, t.role) end
        from intake.webhook w
        left join intake.account a on a.username = w.username
        left join lateral (
            select role from intake.token
            where username = w.username and revoked_at is null and (expires_at is null or expires_at > now())
            order by role = 'participant' desc limit 1) t on true
        where w.disabled_at is null order by w.webhook_id"""  # noqa: S608 - our own
    )
    return [(_webhook(row[:-1]), row[-1]) for row in cursor.fetchall()]


def disable(cursor: Cursor, webhook_id: int, reason: str) -> None:
    """Disable a webhook, and say why."""
    cursor.execute(
        """
        update intake.webhook set disabled_at = now(), disabled_reason = %s, next_try_at = null
        where webhook_id = %s and disabled_at is null""",
        (reason, webhook_id),
    )


def states(cursor: Cursor) -> dict[str, int]:
    """Return how many webhooks are active, failing and disabled."""
    cursor.execute(
        """
        select count(*) filter (where disabled_at is null and failing_since is null),
            count(*) filter (where disabled_at is null and failing_since is not null),
            count(*) filter (where disabled_at is not null)
        from intake.webhook"""
    )
    [counts] = cursor.fetchall()
    return dict(zip(("active", "failing", "disabled"), counts, strict=True))


def places(cursor: Cursor) -> list[list[int]]:
    """Return how far the webhooks are that are not disabled."""
    cursor.execute("select offsets from intake.webhook where disabled_at is null")
    return [offsets for (offsets,) in cursor.fetchall()]


def _found(cursor: Cursor) -> list[Webhook]:
    return [_webhook(row) for row in cursor.fetchall()]


def _webhook(row: Sequence[Any]) -> Webhook:
    (id_, username, url, description, *wanted, secret, old_secret) = row[:10]
    return Webhook(
        webhook_id=id_,
        username=username,
        url=url,
        description=description,
        wanted=Wanted(*wanted),
        secrets=[bytes(one) for one in (secret, old_secret) if one is not None],
        **dict(zip(_REST, row[10:], strict=True)),
    )
