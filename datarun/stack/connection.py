"""How to reach one installation: what `datarun up` writes into its folder and every other command reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from datarun.errors import DatarunError
from datarun.stack.cache import write_atomically

FILE_NAME = "connection.json"


class NotConnected(DatarunError):
    """The folder does not say how to reach a datarun."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The addresses of one installation, and an account in it."""

    gateway_url: str
    kafka: str
    postgres_url: str
    blobs: str
    user: str
    password: str
    runner_token: str = ""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the connection of a folder; raises NotConnected, which says what to do."""
        path = folder / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{field.name: str(content[field.name]) for field in fields(cls) if _is_due(field, content)})
        except FileNotFoundError as error:
            message = (
                f"there is no datarun in {folder}: start one with `datarun up --dir {folder}`, or name another --dir"
            )
            raise NotConnected(message) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotConnected(f"{path} cannot be read ({error}): start `datarun up --dir {folder}` again") from error

    def save(self, folder: Path) -> None:
        """Write the connection, readable by its owner alone."""
        write_atomically(folder / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n", mode=0o600)


def _is_due(field: Field[Any], content: Mapping[str, Any]) -> bool:
    # A folder of an earlier version lacks what came later.
    return field.default is MISSING or field.name in content
