"""`datarun recall`: results that are not trusted any more are asked for again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Execute, Folder, Kafka, TopicPrefix

if TYPE_CHECKING:
    from datarun.recall import Client, Plan

Runner = Annotated[str | None, typer.Option(help="Results of this runner, or of those like gpu1-*.")]
Environment = Annotated[
    str | None,
    typer.Option(help="Results whose provenance has this environment; its first digits do."),
]
Dataset = Annotated[int | None, typer.Option(min=1, max=2_147_483_647, help="Results on this dataset.")]
Before = Annotated[str | None, typer.Option(metavar="TIME", help="Only results before this: ISO 8601, or 2h, 7d ago.")]


def recall(
    *,
    runner: Runner = None,
    environment: Environment = None,
    dataset: Dataset = None,
    before: Before = None,
    execute: Execute = False,
    folder: Folder = DEFAULT_FOLDER,
    gateway: Annotated[str | None, typer.Option(metavar="URL", help="The gateway, instead of the folder's.")] = None,
    user: Annotated[str | None, typer.Option(help="An account, instead of the folder's.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File of its password or token.")] = None,
    kafka: Kafka = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Ask again for every fold whose result is of a runner, an environment or a dataset.

    Interrupted, the same command goes on; what is asked for again already is left alone. With --before, what comes of
    it is not doubted in its turn.
    """
    from contextlib import closing
    from datetime import UTC, datetime

    from datarun import recall as recalling
    from datarun.cli.moments import moment
    from datarun.log.kafka import KafkaLog
    from datarun.settings import load_settings

    now = datetime.now(UTC)
    at = moment(before, now=now) if before else None
    settings = load_settings(folder, kafka=kafka, topic_prefix=topic_prefix)
    with closing(KafkaLog(settings.brokers)) as event_log:
        doubt = recalling.Doubt(runner, environment, dataset, at)
        plan = recalling.plan(event_log, doubt, catalogue=settings.catalogue)
    _show(plan)
    if at is None:
        print(f"given again, add --before {now:%Y-%m-%dT%H:%M:%S}: results from then on are not doubted")
    if not execute:
        print("nothing was done: --execute does it")
        return
    if _ask(plan, _client(folder, gateway, user, password_file)):
        raise typer.Exit(1)


def _show(plan: Plan) -> None:
    print(f"{len(plan.folds):,} folds to ask for again")
    runners = Counter(fold.runner_id for fold in plan.folds)
    for name, count in runners.most_common(20):
        failed = sum(not fold.tested for fold in plan.folds if fold.runner_id == name)
        print(f"{count:>10,}  of runner {name}, {failed:,} of them failed")
    print(f"{plan.asked_already:>10,}  left alone: a newer attempt is asked for")
    print(f"{plan.replaced:>10,}  left alone: a newer version of their submission replaced them")


def _ask(plan: Plan, client: Client) -> int:
    """Ask for the folds and return how many were refused."""
    from rich.console import Console
    from rich.progress import track

    from datarun.gateway_client import GatewayRefused

    console = Console(stderr=True)
    refused = 0
    for fold in track(plan.folds, "asking", console=console, transient=True, disable=not console.is_terminal):
        try:
            client.ask(fold)
        except GatewayRefused as error:
            refused += 1
            print(f"fold {fold.fold_id}: {error}")
    print(f"{len(plan.folds) - refused:,} asked for, {refused:,} refused")
    return refused


def _client(folder: Path, gateway: str | None, user: str | None, password_file: Path | None) -> Client:
    from datarun.errors import DatarunError
    from datarun.recall import Client
    from datarun.stack.connection import Connection

    if gateway is None and user is None and password_file is None:
        connection = Connection.load(folder)
        return Client(connection.gateway_url, connection.user, connection.password)
    if gateway is None or user is None or password_file is None:
        raise DatarunError("--gateway, --user and --password-file go together")
    try:
        return Client(gateway, user, password_file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DatarunError(f"the password file {password_file} cannot be read: {error}") from error
