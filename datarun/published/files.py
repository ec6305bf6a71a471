"""The published files of a checkout: what they should hold, what is wrong with them, and writing them.

Schemas, examples and golden records of old versions stay as they were: the log has such events for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datarun.envelope import Context, encode
from datarun.errors import DatarunError
from datarun.events import EVENT_TYPES, Event
from datarun.published import golden
from datarun.published.asyncapi import document, message_name
from datarun.published.compatibility import breaks
from datarun.published.examples import EXAMPLES
from datarun.published.json_schema import schema_of
from datarun.published.page import page
from datarun.topics import Catalogue

SCHEMAS, EXAMPLES_OF, ASYNCAPI, PAGE = "schemas/events", "schemas/examples", "schemas/asyncapi.json", "docs/events.md"
GOLDEN = "tests/golden"
_CONTEXT = Context("example", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


class SchemaBroken(DatarunError):
    """An event's declaration refuses what its published version allowed."""


def contents() -> dict[str, str]:
    """Return what every file made from the declarations should hold, by its path in the checkout."""
    files = {ASYNCAPI: _json(document()), PAGE: page()}
    for cls in EVENT_TYPES:
        files[f"{SCHEMAS}/{message_name(cls)}.json"] = _json(schema_of(cls))
        files[f"{EXAMPLES_OF}/{message_name(cls)}.json"] = _json(_example(cls))
    return files


def problems(checkout: Path) -> list[str]:
    """Return what is stale, missing, left over or broken; empty when the published files are as declared."""
    wanted = contents()
    found = [f"{path}: {_state(checkout / path)}" for path, text in wanted.items() if _read(checkout / path) != text]
    old = {f"{folder}/{name}.json" for folder in (SCHEMAS, EXAMPLES_OF) for name in _old_versions()}
    found += [f"{path}: an old version is missing" for path in sorted(old) if not (checkout / path).is_file()]
    for folder in (SCHEMAS, EXAMPLES_OF):
        present = {f"{folder}/{path.name}" for path in (checkout / folder).glob("*")}
        found += [f"{path}: nothing declares it" for path in sorted(present - set(wanted) - old)]
    names = [*_old_versions(), *map(message_name, EVENT_TYPES)]
    found += [
        f"{GOLDEN}: no record of {name}" for name in names if not (checkout / GOLDEN / f"{name}.record").is_file()
    ]
    return found + broken(checkout)


def broken(checkout: Path) -> list[str]:
    """Return what the declarations refuse of what the published schemas of the same version allow."""
    found = []
    for cls in EVENT_TYPES:
        published = _read(checkout / SCHEMAS / f"{message_name(cls)}.json")
        if published is not None:
            found += [f"{message_name(cls)}{why}" for why in breaks(json.loads(published), schema_of(cls))]
    return found


def write(checkout: Path) -> list[str]:
    """Write what is stale and return the paths; raises SchemaBroken, having written nothing, for a breaking change."""
    refusals = broken(checkout)
    if refusals:
        advice = "declare a new version and an upcaster (datarun/upcasters.py) instead"
        raise SchemaBroken("\n".join([*refusals, advice]))
    stale = {path: text for path, text in contents().items() if _read(checkout / path) != text}
    for path, text in stale.items():
        _write(checkout / path, text.encode())
    return [*stale, *_write_golden(checkout)]


def _write_golden(checkout: Path) -> Iterator[str]:
    """Keep a record of each version that has none yet; one that is there is never touched."""
    for cls in EVENT_TYPES:
        path = f"{GOLDEN}/{message_name(cls)}.record"
        if not (checkout / path).is_file():
            record = encode(EXAMPLES[cls], catalogue=Catalogue(), context=_CONTEXT)
            _write(checkout / path, golden.dumped(record))
            yield path


def _old_versions() -> list[str]:
    return [f"{cls.__name__}.v{version}" for cls in EVENT_TYPES for version in range(1, cls.version)]


def _example(cls: type[Event]) -> Any:
    return EXAMPLES[cls].model_dump(mode="json", exclude_none=True)


def _state(path: Path) -> str:
    return "stale" if path.is_file() else "missing"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
