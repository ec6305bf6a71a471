"""`python -m services.runner.capsule FILE`: runs the fold of a capsule again, without servers, and compares the bits.

Exits as `verify` does: 0 when they are the same, 1 when they are not, 2 when the fold could not be run again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from datarun.capsule import BadCapsule
from datarun.capsule.opening import open_capsule
from datarun.errors import DatarunError
from datarun.telemetry import configure_logging
from datarun.topics import Catalogue
from services.runner.execution import Limits, SandboxRefused
from services.runner.execution.sandboxes import ISOLATED, remedy
from services.runner.options import (
    HARD_LIMIT_SECONDS,
    MEMORY_MIB,
    HardLimit,
    Memory,
    PackageIndex,
    SandboxMin,
    SoftLimit,
)
from services.runner.rerunning import Options, Recorded, say, verifier_of, verify_all
from services.runner.tested import Wanted, find
from services.runner.verdicts import Exit, Tally

CONFIGURATION_ERROR = 78
MOST_MIB = 16_384


def run(path: Path, options: Options, console: Console, *, most_bytes: int) -> Exit:
    """Run a capsule's fold again, say what came of it, and return the exit code; raises BadCapsule, SandboxRefused."""
    catalogue = Catalogue()
    with tempfile.TemporaryDirectory(prefix="datarun-capsule-") as folder:
        capsule = open_capsule(path, Path(folder, "blobs"), catalogue=catalogue, most_bytes=most_bytes)
        wanted = Wanted((capsule.fold_id,))
        found = find(capsule.log, wanted, catalogue=catalogue, progress=lambda _, __: None)
        tally = Tally(not_verified=len(found.problems))
        for fold_id, problem in found.problems.items():
            say(console, f"fold {fold_id}  NOT VERIFIED: it {problem}")
        if found.folds:
            recorded = Recorded(capsule.log, capsule.blobs, catalogue)
            with verifier_of(recorded, options, Path(folder)) as verifier:
                verify_all(verifier, found.folds, tally, options, console)
    return tally.exit_code


def main(  # noqa: PLR0913 - a command's options are its arguments
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The capsule.")],
    *,
    show_provenance: Annotated[bool, typer.Option("--provenance", help="Print what the fold came from.")] = False,
    most_mib: Annotated[int, typer.Option(min=1, help="A capsule that says it holds more MiB is refused.")] = MOST_MIB,
    hard_limit: HardLimit = HARD_LIMIT_SECONDS,
    soft_limit: SoftLimit = None,
    memory: Memory = MEMORY_MIB,
    sandbox_min: SandboxMin = ISOLATED,
    package_index: PackageIndex = None,
) -> None:
    """Run the fold of a capsule again, in the sandbox and without any server, and compare it bit for bit."""
    configure_logging("capsule", level="warning")
    try:
        limits = Limits.of_options(hard_limit=hard_limit, soft_limit=soft_limit, memory=memory)
        options = Options(limits, 1, sandbox_min, show_provenance, package_index)
        sys.exit(run(file, options, Console(), most_bytes=most_mib << 20))
    except SandboxRefused as error:
        typer.echo(f"datarun fold run: no sandbox of level {sandbox_min}: {error}; {remedy(sandbox_min)}", err=True)
        sys.exit(CONFIGURATION_ERROR)
    except BadCapsule as error:
        typer.echo(f"datarun fold run: {file} is not a whole capsule: {error}", err=True)
        sys.exit(Exit.NOT_VERIFIED)
    except DatarunError as error:
        typer.echo(f"datarun fold run: {error}", err=True)
        sys.exit(Exit.NOT_VERIFIED)


if __name__ == "__main__":
    typer.run(main)
