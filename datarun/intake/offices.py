"""Offices, as named statements: what one gateway does for all of them, for as long as it lives and renews its lease.

A killed gateway's office is free once its connection is gone, a stopped one's when the lease is over.
"""

from __future__ import annotations

from psycopg2.extensions import cursor as Cursor

from datarun.intake.outbox import OWNER_LOCK

LEASE_SECONDS = 10.0
GRACE_SECONDS = 2.0
"""A gateway that reconnects to Postgres has this long to take its lock again."""


def hold(cursor: Cursor, name: str, owner: int) -> bool:
    """Take an office, or keep it for another lease; False while another gateway holds it."""
    cursor.execute(
        """
        insert into intake.office as office (name, owner, leased_until)
        values (%(name)s, %(owner)s, now() + make_interval(secs => %(lease)s))
        on conflict (name) do update set owner = excluded.owner, leased_until = excluded.leased_until
        where office.owner = excluded.owner or office.leased_until < now()
           or (office.leased_until < now() + make_interval(secs => %(lease)s - %(grace)s)
               and not exists (
                select from pg_locks
                where locktype = 'advisory' and classid = %(lock)s::oid and objid = office.owner::oid
                  and objsubid = 2 and granted
                  and database = (select oid from pg_database where datname = current_database())))
        returning owner""",
        {"name": name, "owner": owner, "lease": LEASE_SECONDS, "grace": GRACE_SECONDS, "lock": OWNER_LOCK},
    )
    return cursor.fetchone() is not None


def leave(cursor: Cursor, name: str, owner: int) -> None:
    """Leave an office to the next gateway, if it is held."""
    cursor.execute("delete from intake.office where name = %s and owner = %s", (name, owner))
