"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Option("--dir", help="The folder of the stack, where connection.json is.")]
Kafka = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")]
Postgres = Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")]
TopicPrefix = Annotated[str | None, typer.Option(help="What the topics' names begin with.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without this, only what would be done is shown.")]
DEFAULT_FOLDER = Path(".datarun")
