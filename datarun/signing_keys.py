"""The file of signing keys: who may write which events, by role as for the brokers' access rules, since when."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from datarun.errors import DatarunError
from datarun.signatures import Key, Signatures
from datarun.topics import TOPICS

ROLES = tuple(sorted({role for topic in TOPICS for role in topic.writers if topic.carries}))
SECRET_BYTES = 32
MOST_BYTES = 1_000_000


class _Key(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    roles: Annotated[tuple[str, ...], Field(min_length=1)]
    secret: Annotated[Base64Bytes, Field(min_length=SECRET_BYTES)]
    until: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    since: AwareDatetime
    keys: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,100}$")], _Key], Field(min_length=1)]


def load_keys(path: Path, *, signs_as: str | None = None) -> Signatures:
    """Return the keys of a file, to sign with one of them, by default the only one; raises DatarunError."""
    try:
        with path.open("rb") as file:
            read = _File.model_validate_json(file.read(MOST_BYTES))
    except OSError as error:
        raise DatarunError(f"the signing keys {path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise DatarunError(f"the signing keys {path} are not as they should be: {where}: {first['msg']}") from error
    keys = {
        name: Key(key.secret, _events(path, key.roles), _milliseconds(key.until)) for name, key in read.keys.items()
    }
    if signs_as is None and len(keys) == 1:
        signs_as = next(iter(keys))
    if signs_as is not None and signs_as not in keys:
        raise DatarunError(f"the signing keys {path} have none that is called {signs_as}")
    return Signatures(keys, _milliseconds(read.since) or 0, signs_as)


def new_file(name: str, roles: Iterable[str]) -> str:
    """Return a file with one new key for some roles, in use from now on."""
    secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES))
    made = _File.model_validate(
        {"since": datetime.now(UTC).replace(microsecond=0), "keys": {name: {"roles": tuple(roles), "secret": secret}}}
    )
    return made.model_dump_json(indent=2, exclude_none=True)


def _events(path: Path, roles: Iterable[str]) -> frozenset[str]:
    unknown = set(roles) - set(ROLES)
    if unknown:
        raise DatarunError(f"the signing keys {path} name no role {min(unknown)!r}: there are {', '.join(ROLES)}")
    carried = (event for topic in TOPICS if not set(roles).isdisjoint(topic.writers) for event in topic.carries)
    return frozenset(event.__name__ for event in carried)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
