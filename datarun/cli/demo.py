"""`datarun demo`: the whole stack, the whole job, a table at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from datarun.demo import Outcome
    from datarun.stack.connection import Connection

STYLES = {"TODO": "yellow", "STARTED": "cyan", "TRAINED": "blue", "TESTED": "green", "ERROR": "bold red"}


def demo(
    *,
    folder: Folder = DEFAULT_FOLDER,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running until Ctrl-C.")] = False,
) -> None:
    """Start the stack, train four folds of a submission on iris, fetch their predictions, stop the stack."""
    from rich.console import Console

    from datarun.stack.running import running_stack

    started = time.monotonic()
    console = Console()
    with running_stack(folder) as stack:
        outcome, seconds = _watched(stack.connection, console, started)
        console.print(_table(outcome))
        for fold_id, text in outcome.failed.items():
            console.print(f"[red]fold {fold_id} has no predictions:[/] {text}")
        console.print(f"first command to last prediction: {seconds:.1f} s   gateway {stack.connection.gateway_url}")
        console.print(f"data, logs and connection.json: {folder.resolve()}")
        if keep:
            console.print("running until Ctrl-C")
            _wait_for_interrupt()
    raise typer.Exit(1 if outcome.failed or not outcome.rows else 0)


def _watched(connection: Connection, console: Console, started: float) -> tuple[Outcome, float]:
    from rich.live import Live
    from rich.text import Text

    from datarun.demo import FOLDS, run_demo

    shown: dict[int, str] = {}
    with Live(console=console, refresh_per_second=20, transient=not console.is_terminal) as live:

        def show(states: dict[int, str]) -> None:
            if states != shown:
                shown.update(states)
                parts = [(f" {fold} {states.get(fold, 'TODO')} ", STYLES[states.get(fold, "TODO")]) for fold in FOLDS]
                live.update(Text.assemble("  folds ", *parts))
                if not console.is_terminal:
                    console.print("  folds " + "  ".join(f"{fold} {state}" for fold, state in sorted(states.items())))

        outcome = run_demo(connection, tell=lambda line: console.print(f"  [green]✔[/] {line}"), show=show)
    return outcome, time.monotonic() - started


def _table(outcome: Outcome) -> Table:
    from rich.table import Table

    table = Table(title="New predictions")
    for heading in ("fold", "state", "queue", "train s", "validation s", "test s", "peak MiB", "accuracy"):
        table.add_column(heading, justify="left" if heading in ("state", "queue") else "right")
    for row in outcome.rows:
        table.add_row(
            str(row.fold_id),
            f"[{STYLES[row.state]}]{row.state}[/]",
            {"H": "high", "L": "low"}[row.queue],
            f"{row.train_time:.3f}",
            f"{row.validation_time:.3f}",
            f"{row.test_time:.3f}",
            f"{row.peak_mib:.0f}",
            f"{row.accuracy:.3f}",
        )
    return table


def _wait_for_interrupt() -> None:
    import signal

    signal.sigwait({signal.SIGINT, signal.SIGTERM})
