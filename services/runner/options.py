"""Options that the runner and what runs folds again have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

CORES = os.cpu_count() or 1
HARD_LIMIT_SECONDS = 3600.0
MEMORY_MIB = 4096

Directory = Annotated[Path, typer.Option("--dir", help="Folder of a running `datarun up`.")]
KafkaServers = Annotated[str | None, typer.Option(help="Kafka's host:port.")]
BlobsUrl = Annotated[str | None, typer.Option(help="URL of the blob store; without one, the gateway's.")]
GatewayUrl = Annotated[str | None, typer.Option(metavar="URL", help="The gateway's URL.")]
TokenFile = Annotated[Path | None, typer.Option(help="File of the token of a runner at the gateway.")]
TopicPrefix = Annotated[str | None, typer.Option(help="Prefix of the topics' names.")]
SlotCount = Annotated[int, typer.Option(min=1, max=256, help="Folds at once; default: cores.")]
HardLimit = Annotated[float, typer.Option(min=1, help="Seconds after which a fold is killed.")]
SoftLimit = Annotated[
    float | None,
    typer.Option(min=1, help="Seconds after which a fold is interrupted; default: nine tenths of the hard limit."),
]
Memory = Annotated[int, typer.Option(min=256, help="MiB a fold may use.")]
SandboxMin = Annotated[
    int, typer.Option(min=0, max=4, envvar="DATARUN_SANDBOX_MIN", help="Sandbox level below which not to start.")
]
PackageIndex = Annotated[
    str | None,
    typer.Option(envvar="DATARUN_PACKAGE_INDEX", help="URL or folder of wheels that packages are installed from."),
]
