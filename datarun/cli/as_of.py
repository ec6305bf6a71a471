"""`datarun as-of TIME`: what folds and datasets were at a moment, from the log alone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder, Kafka, Postgres, TopicPrefix

if TYPE_CHECKING:
    from datarun.projection.as_of import Past, Wanted

SHOWN = 50
_Id = typer.Option(min=1, max=2_147_483_647)


def as_of(
    time: Annotated[
        str, typer.Argument(help="ISO 8601 (UTC unless it says otherwise), or how long ago: 90s, 15m, 2h, 7d.")
    ],
    *,
    dataset: Annotated[int | None, _Id] = None,
    submission: Annotated[int | None, _Id] = None,
    fold: Annotated[int | None, _Id] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, datasets first, without a limit.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many folds are shown at the most.")] = SHOWN,
    folder: Folder = DEFAULT_FOLDER,
    kafka: Kafka = None,
    postgres: Postgres = None,
    topic_prefix: TopicPrefix = None,
) -> None:
    """Show what folds and datasets were at a moment, by the broker's clock, as the log tells it."""
    from datarun.cli.moments import moment
    from datarun.cli.projection_report import bar
    from datarun.cli.servers import database_errors, ground
    from datarun.projection.as_of import Wanted
    from datarun.projection.as_of import as_of as read_model_at

    at = moment(time, now=datetime.now(UTC))
    wanted = Wanted(fold_id=fold, submission_id=submission, raw_data_id=dataset)
    servers = ground(folder, kafka, postgres, topic_prefix, schema="as_of")
    with database_errors(), bar("reading the log") as progress:  # noqa: SIM117 - the bar is there first
        with read_model_at(servers, at, progress=progress) as past:
            if json:
                _print_lines(past, wanted)
            else:
                _print_tables(past, wanted, at, limit)


def _print_lines(past: Past, wanted: Wanted) -> None:
    import orjson

    for kind, rows in (("dataset", past.datasets(wanted)), ("fold", past.folds(wanted))):
        for row in rows:
            print(orjson.dumps({"kind": kind, **row}).decode())


def _print_tables(past: Past, wanted: Wanted, at: datetime, limit: int) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    datasets = Table("dataset", "name", "state", "uploaded by", "uploaded at")
    for row in past.datasets(wanted):
        datasets.add_row(
            str(row["raw_data_id"]), row["name"], row["state"], row["uploaded_by"], str(row["uploaded_at"])
        )
    folds = Table("fold", "attempt", "state", "submission", "version", "dataset", "cause", "runner", "since")
    states: Counter[str] = Counter()
    for row in past.folds(wanted):
        states[row["state"]] += 1
        if states.total() <= limit:
            names = ("fold_id", "attempt", "state", "submission_id", "submission_version", "raw_data_id")
            cells = [
                *(row[name] for name in names),
                row["cause"],
                row["runner_id"],
                row["run_at"] or row["requested_at"],
            ]
            folds.add_row(*("" if cell is None else str(cell) for cell in cells))
    console = Console()
    console.print(f"{at.isoformat()}, from {past.events:,} events")
    console.print(datasets)
    console.print(folds)
    hidden = max(states.total() - limit, 0)
    console.print(", ".join(f"{count:,} {state}" for state, count in sorted(states.items())) or "no folds")
    if hidden:
        console.print(f"{hidden:,} more folds are not shown: --limit, --json")
