"""`datarun fold`: one fold, by way of the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

app = typer.Typer(help="Folds.", no_args_is_help=True)


@app.callback()
def fold() -> None:
    """Work on folds."""


@app.command()
def cancel(
    fold_id: Annotated[int, typer.Argument(min=1, max=2_147_483_647)],
    *,
    folder: Folder = DEFAULT_FOLDER,
    reason: Annotated[str, typer.Option(help="Shown with the fold.")] = "",
) -> None:
    """Cancel a fold: it does not start, or is killed with everything it started."""
    from datarun.cancellation import cancel_fold
    from datarun.stack.connection import Connection

    print(cancel_fold(Connection.load(folder), fold_id, reason=reason))
