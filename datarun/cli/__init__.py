"""The `datarun` command. What a command needs is imported when it runs, so that help comes at once."""

from __future__ import annotations

import sys

import typer

from datarun.cli import (
    as_of,
    backup,
    blobs,
    db,
    demo,
    deploy,
    dlq,
    doctor,
    events,
    fold,
    intake,
    projection,
    recall,
    replay,
    rescore,
    schemas,
    services,
    stack,
    token,
    topics,
    user,
)
from datarun.errors import DatarunError, Retryable

FAILED, UNREACHABLE = 1, 3

app = typer.Typer(
    help="Train and test machine-learning submissions on cross-validation folds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # The boxed help imports half of rich: 0.3 s for a help text.
    rich_markup_mode=None,
)
app.command("as-of")(as_of.as_of)
for command in (
    backup.backup,
    backup.restore,
    demo.demo,
    doctor.doctor,
    recall.recall,
    replay.replay,
    rescore.rescore,
    stack.up,
    stack.status,
    stack.down,
    stack.prepare,
):
    app.command()(command)
for name in services.MODULES:
    services.register(app, name)
app.add_typer(blobs.app, name="blobs")
app.add_typer(db.app, name="db")
app.add_typer(deploy.app, name="deploy")
app.add_typer(dlq.app, name="dlq")
app.add_typer(events.app, name="events")
app.add_typer(fold.app, name="fold")
app.add_typer(intake.app, name="intake")
app.add_typer(projection.app, name="projection")
app.add_typer(schemas.app, name="schemas")
app.add_typer(token.app, name="token")
app.add_typer(topics.app, name="topics")
app.add_typer(user.app, name="user")


def main() -> None:
    """Run the command line; an error is one message and an exit code: 1, or 3 when a server is not there."""
    try:
        app()
    except DatarunError as error:
        print(f"datarun: {error}", file=sys.stderr)
        sys.exit(UNREACHABLE if isinstance(error, Retryable) else FAILED)
