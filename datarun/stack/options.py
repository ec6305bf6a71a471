"""What a stack is made of, as its user said it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from datarun import tokens
from datarun.stack.connection import FILE_NAME, Connection
from datarun.stack.ports import LOOPBACK, free_ports, is_free
from datarun.stack.postgres import local_postgres

USER = "datarun"


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """The folder, the cache, and servers to use instead of local ones."""

    folder: Path
    cache: Path
    kafka: str | None = None
    postgres: str | None = None
    blobs: str | None = None
    java: Path | None = None
    java_home: Path | None = None
    fresh: bool = False
    topic_prefix: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def decide_connection(options: StackOptions) -> Connection:
    """Return every address of the stack before anything runs: those of the last start wherever they are still free."""
    folder = options.folder.absolute()
    last = Connection.load(folder) if (folder / FILE_NAME).exists() else None
    gateway_port, kafka_port = _ports(last)
    return Connection(
        gateway_url=f"http://{LOOPBACK}:{gateway_port}",
        kafka=options.kafka or f"{LOOPBACK}:{kafka_port}",
        postgres_url=options.postgres or local_postgres(folder / "postgres", cache=options.cache).url,
        blobs=options.blobs or (folder / "blobs").as_uri(),
        user=last.user if last else _new_user(options),
        password=last.password if last else secrets.token_urlsafe(18),
        runner_token=(last.runner_token if last else "") or tokens.make(),
    )


def _new_user(options: StackOptions) -> str:
    # A database that was there before may know the name, with a password that we do not.
    is_new = options.postgres is None and not (options.folder / "postgres").exists()
    return USER if is_new else f"{USER}-{secrets.token_hex(3)}"


def _ports(last: Connection | None) -> list[int]:
    fresh = free_ports(2)
    if last is None:
        return fresh
    kept = (urlsplit(last.gateway_url).port, urlsplit(f"//{last.kafka}").port)
    return [old if old is not None and is_free(old) else new for old, new in zip(kept, fresh, strict=True)]
