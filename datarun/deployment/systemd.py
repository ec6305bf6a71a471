"""systemd units: the gateway and the projector for one host, a runner for each line of a list of runners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from string import Template
from urllib.parse import urlsplit

from datarun.errors import DatarunError
from datarun.runner_list import RunnerLine

SERVER = "server"
"""The folder of the host that runs the gateway and the projector."""
MAX_GRACE_SECONDS = 600
"""What the 2016 datarun gave running folds at a stop."""
KILL_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Where the program is on every host, whom it runs as, and the servers it uses."""

    kafka: str
    gateway: str
    postgres: str | None = None
    blobs: str | None = None
    home: str = "/opt/datarun"
    user: str = "datarun"


def render(installation: Installation, runners: Iterable[RunnerLine]) -> dict[PurePosixPath, str]:
    """Return the files of every host by their names below a folder; raises DatarunError for what no unit can hold."""
    _refuse_unfit(installation)
    common = {"home": installation.home, "user": installation.user, "hardening": _text("hardening")}
    server, writable = PurePosixPath(SERVER), _writable(installation.blobs)
    rendered = {
        server / "datarun.env": _server_environment(installation),
        server / "datarun-gateway.service": _unit("datarun-gateway.service", common | {"writable": writable}),
        server / "datarun-projector.service": _unit("datarun-projector.service", common),
    }
    for line in runners:
        host = PurePosixPath(line.host)
        rendered[host / "datarun.env"] = _environment(
            DATARUN_KAFKA=installation.kafka, DATARUN_GATEWAY_URL=installation.gateway
        )
        rendered[host / "datarun-runner.service"] = _unit("datarun-runner.service", common | _of_runner(line))
    return rendered


def write(rendered: Mapping[PurePosixPath, str], folder: Path) -> None:
    """Write rendered files below a folder; raises OSError."""
    for name, text in rendered.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _of_runner(line: RunnerLine) -> dict[str, str]:
    grace = min(int(float(line.hard_limit)), MAX_GRACE_SECONDS)
    return {
        "host": line.host,
        "slots": str(line.slots),
        "queues": ",".join(line.queues),
        "options": " ".join(line.arguments()),
        "grace": str(grace),
        "stop": str(grace + KILL_SECONDS),
    }


def _server_environment(installation: Installation) -> str:
    given = {"DATARUN_POSTGRES_URL": installation.postgres, "DATARUN_BLOBS": installation.blobs}
    known = {name: value for name, value in given.items() if value is not None}
    missing = "".join(f"# {name}= is to be filled in\n" for name in given if name not in known)
    return _environment(DATARUN_KAFKA=installation.kafka, **known) + missing


def _environment(**variables: str) -> str:
    # In these files a backslash and a double quote are all that a value in double quotes cannot hold as they are.
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in variables.items()}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def _writable(blobs: str | None) -> str:
    parts = urlsplit(blobs or "")
    return f"ReadWritePaths={parts.path}\n" if blobs and parts.scheme in ("", "file") else ""


def _unit(name: str, values: Mapping[str, str]) -> str:
    return Template(_text(name)).substitute(values)


def _text(name: str) -> str:
    return (files("datarun.deployment") / "units" / name).read_text(encoding="utf-8")


def _refuse_unfit(installation: Installation) -> None:
    """Refuse what would be read as something else: line ends anywhere, blanks and % where systemd splits or expands."""
    values = (installation.kafka, installation.gateway, installation.postgres or "", installation.blobs or "")
    if any(not value.isprintable() for value in values):
        raise DatarunError("an address of a server is one line of printable characters")
    for value in (installation.home, installation.user, urlsplit(installation.blobs or "").path):
        if any(character in "%$\"'\\" or character.isspace() or not character.isprintable() for character in value):
            raise DatarunError(f"{value!r} cannot stand in a unit: it has a blank, a quote, a % or a $")
    if not installation.home.startswith("/"):
        raise DatarunError(f"--home is an absolute path, not {installation.home!r}")
