"""`datarun doctor`: what this machine and the servers it is to use still lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datarun.cli.options import DEFAULT_FOLDER, Folder

if TYPE_CHECKING:
    from datarun.doctor.findings import Finding
    from datarun.settings import Settings

MARKS = {"ok": "[green]✔[/]", "note": "[yellow]·[/]", "missing": "[red]✘[/]"}


def doctor(
    *,
    folder: Folder = DEFAULT_FOLDER,
    sandbox_min: Annotated[
        int, typer.Option(min=0, max=4, envvar="DATARUN_SANDBOX_MIN", help="The sandbox level that is needed.")
    ] = 3,
    kafka: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The broker, instead of the folder's.")] = None,
    postgres: Annotated[str | None, typer.Option(metavar="URL", help="The database, instead of the folder's.")] = None,
    blobs: Annotated[str | None, typer.Option(metavar="URL", help="The blob store, instead of the folder's.")] = None,
    gateway: Annotated[str | None, typer.Option(metavar="URL", help="The gateway, instead of the folder's.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a runner's token.")] = None,
    topic_prefix: Annotated[str | None, typer.Option(help="What the topics' names begin with.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at this machine and at the servers; exit code 1 when something needed is missing."""
    from datarun.doctor import machine, servers

    options = {
        "kafka": kafka,
        "postgres_url": postgres,
        "blobs": blobs,
        "gateway_url": gateway,
        "token_file": token_file,
        "topic_prefix": topic_prefix,
    }
    settings, findings = _settings(folder, options)
    findings += [*machine.examine(folder, sandbox_min=sandbox_min), *servers.examine(settings)]
    if as_json:
        print(json.dumps([_fields(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _print(findings)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


def _settings(folder: Path, options: dict[str, Any]) -> tuple[Settings, list[Finding]]:
    """Return the settings as far as they can be had, and what is wrong with them."""
    from datarun.doctor.findings import missing
    from datarun.errors import DatarunError
    from datarun.settings import load_settings

    findings: list[Finding] = []
    for left_out in ({}, {"kafka": ""}, {"token_file": None}, {"kafka": "", "token_file": None}):
        try:
            return load_settings(folder, **(options | left_out)), findings
        except DatarunError as error:
            text = str(error)
        if not text.startswith("no kafka") and not findings:
            findings.append(missing("settings", text, "name a file that can be read"))
    raise DatarunError(text)


def _fields(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "state": finding.state, "seen": finding.seen, "remedy": finding.remedy}


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]→ {escape(finding.remedy)}[/]" if finding.remedy else ""
        table.add_row(MARKS[finding.state], finding.name, f"{escape(finding.seen)}{remedy}")
    Console(highlight=False).print(table)
