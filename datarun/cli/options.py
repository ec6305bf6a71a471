"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Option("--dir", help="The folder of the stack, where connection.json is.")]
DEFAULT_FOLDER = Path(".datarun")
Postgres = Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")]
