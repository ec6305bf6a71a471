"""`datarun gateway`, `projector`, `runner` and `verify`: a program of the services in place of this process."""

from __future__ import annotations

import os
import sys

import typer

from datarun.cli import packages
from datarun.cli.listed import listed

MODULES = {
    "gateway": ("services.ingest", "Serve the HTTP interface."),
    "projector": ("services.projector", "Turn events into rows."),
    "runner": ("services.runner", "Train and test folds (--list FILE: as a host's line says), or `install` packages."),
    "verify": ("services.runner.verify", "Run tested folds again and compare their predictions bit for bit."),
}
# The program parses its own options, --help included.
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer, name: str) -> None:
    """Add the command that becomes the program."""
    module, text = MODULES[name]

    @app.command(name, help=text, context_settings=PASS_THROUGH, add_help_option=False)
    def run(context: typer.Context) -> None:
        if name == "runner" and context.args[:1] and context.args[0] in packages.COMMANDS:
            raise typer.Exit(packages.app(context.args, prog_name="datarun runner", standalone_mode=False) or 0)
        arguments = listed(context.args) if name == "runner" else context.args
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted
