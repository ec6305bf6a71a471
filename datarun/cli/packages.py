"""`datarun runner install` and `datarun runner packages`: what folds can import on every runner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from datarun.environments import Environments, Result
    from datarun.packages import Switchboard

COMMANDS = ("install", "packages")
MAX_DATASET = 2_147_483_647

app = typer.Typer(help="Packages that folds can import.", add_completion=False, rich_markup_mode=None)

Broker = Annotated[str | None, typer.Option("--kafka", metavar="HOST:PORT", help="The broker.")]
Prefix = Annotated[str | None, typer.Option("--topic-prefix", help="What the topics' names begin with.")]


@app.command()
def install(
    package: Annotated[str, typer.Argument(help="A name with versions, such as 'lightgbm>=4'.")],
    *,
    dataset: Annotated[
        int | None, typer.Option(min=1, max=MAX_DATASET, help="Only for the folds of this dataset.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the answers of the runners.")] = True,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for them.")] = 600.0,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Broker = None,
    topic_prefix: Prefix = None,
) -> None:
    """Have every runner install a package, for its next folds; exit code 1 when one of them cannot."""
    environment = "default" if dataset is None else str(dataset)
    with _switchboard(folder, kafka, topic_prefix) as switchboard:
        request = switchboard.request(package, environment, requested_by=_user())
        print(f"asked for {request.requirement} in environment {environment}")
        if not wait:
            return
        answers = switchboard.await_answers(request, timeout_seconds=timeout, tell=_tell)
    for runner_id in sorted(answers.silent):
        print(f"  {runner_id}: no answer within {timeout:g} s; `datarun runner packages` will show it")
    if not answers.results and not answers.silent:
        print("no runner lives; each installs it when it starts")
    if answers.silent or any(_reason(result) is not None for result in answers.results.values()):
        raise typer.Exit(1)


@app.command()
def packages(*, folder: Folder = DEFAULT_FOLDER, kafka: Broker = None, topic_prefix: Prefix = None) -> None:
    """List what was asked for in each environment, and what each living runner says of it."""
    with _switchboard(folder, kafka, topic_prefix) as switchboard:
        state, live = switchboard.state(), switchboard.live()
    for environment in state.names():
        print(f"environment {environment}")
        _list(state, environment, live)
    print(f"living runners: {', '.join(sorted(live)) or 'none'}")


def _list(state: Environments, environment: str, live: set[str]) -> None:
    requests = state.requests(environment)
    if not requests:
        print("  nothing beside the runners' own packages")
    for request in requests:
        print(f"  {request.requirement}, asked for by {request.requested_by} in environment {request.environment}")
        results = state.results(request.request_id, environment)
        for runner_id in sorted(live):
            print(f"    {_described(results[runner_id])}" if runner_id in results else f"    {runner_id}: not yet")


def _tell(result: Result) -> None:
    print(f"  {_described(result)}", flush=True)


def _described(result: Result) -> str:
    """Return a result as lines; what a terminal would take for a command is left out."""
    return "\n".join("".join(filter(str.isprintable, line)) for line in _text(result).splitlines())


def _text(result: Result) -> str:
    reason = _reason(result)
    if reason is not None:
        lines = "\n".join(f"      {line}" for line in reason.splitlines())
        return f"{result.runner_id}: FAILED after {result.seconds:.1f} s\n{lines}"
    key = result.environment_key
    where = f"environment {key[:12]}" if key else "it is among the runner's own packages"
    added = " ".join(getattr(result, "packages", ()))
    return f"{result.runner_id}: installed in {result.seconds:.1f} s, {where}{': ' if added else ''}{added}"


def _reason(result: Result) -> str | None:
    return getattr(result, "reason", None)


@contextmanager
def _switchboard(folder: Path, kafka: str | None, topic_prefix: str | None) -> Iterator[Switchboard]:
    from datarun.log.kafka import KafkaLog
    from datarun.packages import Switchboard
    from datarun.settings import load_settings

    # No bytes move; only the settings' reader asks for a place.
    settings = load_settings(folder, kafka=kafka, topic_prefix=topic_prefix, blobs="unused:")
    event_log = KafkaLog(settings.brokers)
    try:
        yield Switchboard(event_log, settings.catalogue)
    finally:
        event_log.close()


def _user() -> str:
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())
