"""systemd units from a list of runners: the committed ones are those the program writes, and systemd takes them."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datarun.deployment.systemd import Installation, render
from datarun.errors import DatarunError
from datarun.runner_list import load_runners, parse_runners

ROOT = Path(__file__).parents[2]
EXAMPLE = Installation(
    kafka="kafka.example.org:9092",
    gateway="https://datarun.example.org",
    postgres="postgresql://datarun@db.example.org/datarun",
    blobs="file:///var/lib/datarun-blobs",
)
BREAKS_THE_SANDBOX = (
    "RestrictNamespaces",
    "PrivateUsers",
    "SystemCallFilter",
    "CapabilityBoundingSet",
    "ProtectProc",
    "ProcSubset",
    "ProtectKernelTunables",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectHostname",
    "MemoryDenyWriteExecute",
    "PrivateNetwork",
)


def test_the_committed_units_are_what_the_program_writes() -> None:
    """`deploy/systemd` holds every rendered file as it would be written now, and nothing else."""
    folder = ROOT / "deploy"
    rendered = render(EXAMPLE, load_runners(folder / "list_runners.txt"))
    committed = {
        str(path.relative_to(folder / "systemd")): path.read_text()
        for path in (folder / "systemd").rglob("*")
        if path.is_file()
    }
    assert committed == {str(name): text for name, text in rendered.items()}


def test_the_command_line_writes_what_systemd_accepts(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say about any unit."""
    argv = [sys.executable, "-m", "datarun.cli", "deploy", "systemd", "--list", str(ROOT / "deploy/list_runners.txt")]
    options = ["--out", str(tmp_path), "--kafka", "k:1", "--gateway", "http://g", "--blobs", "s3://b", "--user", "root"]
    home = tmp_path / "home"
    program = home / ".venv" / "bin" / "datarun"
    program.parent.mkdir(parents=True)
    program.symlink_to(shutil.which("true") or "/bin/true")
    subprocess.run([*argv, *options, "--home", str(home)], check=True, timeout=60)
    units = sorted(tmp_path.glob("*/*.service"))
    assert len(units) == 4
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        pytest.skip("there is no systemd-analyze on this machine")
    checked = subprocess.run([analyse, "verify", *units], capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_runner_s_unit_says_what_its_line_says_and_leaves_the_sandbox_room() -> None:
    """Queues, slots, limits, time to stop; and no directive that would take the namespaces away."""
    rendered = render(EXAMPLE, parse_runners("gpu 3 L,celery 900 800"))
    (text,) = [text for name, text in rendered.items() if name.name == "datarun-runner.service"]
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    service = unit["Service"]
    assert "--queues L,data --slots 3 --hard-limit 900 --soft-limit 800 --grace 600" in service["ExecStart"]
    assert service["TimeoutStopSec"] == "630"
    assert (service["Type"], service["Restart"], service["RestartPreventExitStatus"]) == ("notify", "always", "78")
    assert (service["Delegate"], service["KillMode"], service["OOMPolicy"]) == ("yes", "mixed", "continue")
    assert not set(service) & set(BREAKS_THE_SANDBOX)
    assert "postgres" not in "".join(text for name, text in rendered.items() if name.parts[0] == "gpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"home": "/opt/data run"},
        {"home": "opt"},
        {"home": "/opt/%h"},
        {"user": "a\nExecStartPre=/bin/evil"},
        {"kafka": "k:1\nX=1"},
        {"blobs": "/var/lib/b %i"},
    ],
)
def test_what_a_unit_cannot_hold_is_refused(wrong: dict[str, str]) -> None:
    """Nothing that is given can add a line or be expanded."""
    with pytest.raises(DatarunError):
        render(Installation(**({"kafka": "k:1", "gateway": "http://g"} | wrong)), [])
