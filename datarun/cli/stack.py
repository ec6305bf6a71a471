"""`datarun up`, `status`, `down` and `prepare`: the local stack."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datarun.cli.environment import (
    cache_folder,
    java_home,
    service_environment,
    topic_prefix,
    trust_system_certificates,
)
from datarun.cli.options import DEFAULT_FOLDER, Folder
from datarun.errors import DatarunError

if TYPE_CHECKING:
    from datarun.stack.folder import StackFolder

NOT_RUNNING = 3


class Output(StrEnum):
    """How a command prints its answer."""

    TABLE = "table"
    JSON = "json"


class StackBusy(DatarunError):
    """The stack runs, so its data cannot be deleted."""


def up(
    *,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use this broker, not a local one.")] = None,
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="Use this database, not a local one.")] = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="Keep blobs here: file:// or s3://.")] = None,
    java: Annotated[Path | None, typer.Option(help="Run the local Kafka with this Java (17 or newer).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete all data of the folder first.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when everything is ready; leave it running.")
    ] = False,
) -> None:
    """Start Kafka, Postgres, the gateway, the projector and a runner; stop them with Ctrl-C."""
    from datarun.stack.folder import AlreadyRunning, StackFolder
    from datarun.stack.options import StackOptions
    from datarun.stack.report import ConsoleReport
    from datarun.stack.running import start_detached
    from datarun.stack.up import run_stack

    stack = StackFolder(folder.absolute())
    if stack.is_held():
        _say_running(stack, fresh=fresh)
        return
    if detach:
        given = {"--kafka": kafka, "--postgres": postgres, "--blobs": blobs, "--java": java}
        arguments = [part for name, value in given.items() if value is not None for part in (name, str(value))]
        start_detached(folder, [*arguments, *(["--fresh"] if fresh else [])], print)
        return
    trust_system_certificates()
    options = StackOptions(
        folder=folder,
        cache=cache_folder(),
        kafka=kafka,
        postgres=postgres,
        blobs=blobs,
        java=java,
        java_home=java_home(),
        fresh=fresh,
        topic_prefix=topic_prefix(),
        environment=service_environment(),
    )
    try:
        code = run_stack(options, ConsoleReport())
    except AlreadyRunning:
        _say_running(stack, fresh=fresh)
        return
    raise typer.Exit(code)


def down(*, folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop the stack of a folder and wait until nothing of it runs."""
    from datarun.stack.running import stop

    print("stopped" if stop(folder) else f"no stack runs in {folder}")


def status(
    *,
    folder: Folder = DEFAULT_FOLDER,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = Output.TABLE,
) -> None:
    """List the processes of the stack; exit code 3 when none runs."""
    from datarun.stack.folder import StackFolder

    stack = StackFolder(folder.absolute())
    answer = _status(stack)
    if output is Output.JSON:
        print(json.dumps(answer, indent=2))
    elif answer["running"]:
        print(f"{'process':<10} {'pid':>7}  {'state':<10} {'restarts':>8}  url")
        for name, part in answer["processes"].items():
            print(f"{name:<10} {part['pid'] or '':>7}  {part['state']:<10} {part['restarts']:>8}  {part['url']}")
            if part["detail"]:
                print(f"{'':<40}{part['detail']}")
    else:
        print(f"no stack runs in {folder}: start one with `datarun up`")
    if not answer["running"]:
        raise typer.Exit(NOT_RUNNING)


def prepare(*, java: Annotated[Path | None, typer.Option(help="Prepare for this Java (17 or newer).")] = None) -> None:
    """Fetch and make what the local Kafka needs, so that `datarun up` is quick."""
    from datarun.stack.prepare import ensure_kafka
    from datarun.stack.report import ConsoleReport

    trust_system_certificates()
    ensure_kafka(cache_folder(), java=java, java_home=java_home(), tell=ConsoleReport())


def _status(stack: StackFolder) -> dict[str, Any]:
    state = stack.state() if stack.is_held() else None
    if state is None:
        return {"running": False, "ready": False, "pid": None, "processes": {}}
    parts = {
        name: {
            "pid": part.pid,
            "state": part.state,
            "url": part.url,
            "detail": part.detail,
            "restarts": part.restarts,
        }
        for name, part in state.processes.items()
    }
    return {"running": True, "ready": state.is_ready, "pid": state.pid, "processes": parts}


def _say_running(stack: StackFolder, *, fresh: bool) -> None:
    if fresh:
        raise StackBusy(f"a stack runs in {stack.path}: stop it with `datarun down`, then start afresh")
    print(f"datarun is already running in {stack.path}")
    for name, part in _status(stack)["processes"].items():
        print(f"{name:<10} {part['url'] or part['state']}")
