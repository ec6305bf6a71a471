"""What a request can be refused with; each knows its status and its body, which is that of the 2016 service.

Nothing was recorded when one of these is raised, but for the one that says that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datarun.errors import DatarunError

NO_HEADERS: Mapping[str, str] = {}


class Refusal(DatarunError):
    """The request was refused."""

    def __init__(self, status: int, body: Any, *, headers: Mapping[str, str] = NO_HEADERS, close: bool = False) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = headers
        self.close = close


def invalid(**fields: str) -> Refusal:
    """Refuse fields, with one message each."""
    return Refusal(400, {name: [message] for name, message in fields.items()})


def detail(status: int, text: str, *, close: bool = False, **headers: str) -> Refusal:
    """Refuse the whole request; header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refusal(status, {"detail": text}, headers=named, close=close)


def not_found() -> Refusal:
    """Refuse because there is no such thing."""
    return detail(404, "Not found.")


def forbidden() -> Refusal:
    """Refuse because the account's role is for something else, or the work somebody else's."""
    return detail(403, "You do not have permission to perform this action.")


def not_recordable() -> Refusal:
    """Refuse because the database is away."""
    return detail(503, "The service cannot record anything now; nothing was recorded.", Retry_After="5")


def unconfirmed() -> Refusal:
    """Say that the database went away in the middle of recording; of what is repeated the claims take one."""
    text = "The service cannot tell now whether this was recorded; sending it again is safe."
    return detail(503, text, Retry_After="5")


def file_refused(name: str, message: str, *, status: int = 400) -> Refusal:
    """Refuse a file; the name is shown so that no character of it can act."""
    shown = name if name.isprintable() else ascii(name)[1:-1]
    return Refusal(status, {"files": {shown[:300]: [message]}})
