"""`python -m services.runner.verify`: runs tested folds again and says which of them give the same bits.

Exits with 0 when all did, 1 when one did not, 2 when one could not be run again, 3 when the log does not answer.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from datarun.errors import DatarunError, Retryable
from datarun.http_blobs import CACHE_MIB, blobs_of
from datarun.log.kafka import KafkaLog
from datarun.settings import DEFAULT_DIR, Settings, load_settings
from datarun.telemetry import configure_logging
from services.runner.execution import Limits, SandboxRefused
from services.runner.execution.sandboxes import ISOLATED, remedy
from services.runner.options import (
    CORES,
    HARD_LIMIT_SECONDS,
    MEMORY_MIB,
    BlobsUrl,
    Directory,
    GatewayUrl,
    HardLimit,
    KafkaServers,
    Memory,
    PackageIndex,
    SandboxMin,
    SlotCount,
    SoftLimit,
    TokenFile,
    TopicPrefix,
)
from services.runner.rerunning import Options, Recorded, bar_on, say, verifier_of, verify_all
from services.runner.tested import Wanted, find
from services.runner.verdicts import Exit, Tally

CONFIGURATION_ERROR = 78


def run(settings: Settings, wanted: Wanted, options: Options, console: Console) -> Exit:
    """Verify the wanted folds, a line each as they come, and return the exit code."""
    event_log = KafkaLog(settings.brokers)
    try:
        with bar_on(console) as bar:
            task = bar.add_task("reading the log", total=None)
            found = find(
                event_log,
                wanted,
                catalogue=settings.catalogue,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        tally = Tally(not_verified=len(found.problems))
        for fold_id, problem in found.problems.items():
            say(console, f"fold {fold_id}  NOT VERIFIED: it {problem}")
        if not found.folds:
            tally.not_verified += not found.problems
            say(console, "there is no tested fold to run again")
            return tally.exit_code
        begun = time.monotonic()
        blobs = blobs_of(settings, cache_folder=settings.directory / "blob-cache", cache_mib=CACHE_MIB)
        recorded = Recorded(event_log, blobs, settings.catalogue)
        with verifier_of(recorded, options, settings.directory) as verifier:
            verify_all(verifier, found.folds, tally, options, console)
        say(console, f"{tally.summary} in {time.monotonic() - begun:.1f} s")
        return tally.exit_code
    finally:
        event_log.close()


def main(  # noqa: PLR0913 - a command's options are its arguments
    fold_ids: Annotated[list[int] | None, typer.Argument(metavar="[FOLD_ID]...", help="The folds.")] = None,
    *,
    dataset: Annotated[int | None, typer.Option(help="Every tested fold of this dataset.")] = None,
    submission: Annotated[int | None, typer.Option(help="Every tested fold of this submission.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="So many of them, chosen by chance.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every tested fold.")] = False,
    show_provenance: Annotated[bool, typer.Option("--provenance", help="Print what each fold came from.")] = False,
    directory: Directory = DEFAULT_DIR,
    kafka: KafkaServers = None,
    blobs: BlobsUrl = None,
    gateway: GatewayUrl = None,
    token_file: TokenFile = None,
    topic_prefix: TopicPrefix = None,
    slots: SlotCount = CORES,
    hard_limit: HardLimit = HARD_LIMIT_SECONDS,
    soft_limit: SoftLimit = None,
    memory: Memory = MEMORY_MIB,
    sandbox_min: SandboxMin = ISOLATED,
    package_index: PackageIndex = None,
) -> None:
    """Run tested folds again and compare their predictions bit for bit; the log keeps what is found."""
    configure_logging("verify", level="warning")
    if bool(fold_ids) + every + (dataset is not None or submission is not None) + (sample is not None) == 0:
        raise typer.BadParameter("name folds, or say --dataset, --submission, --sample or --all")
    if fold_ids and (every or sample or dataset is not None or submission is not None):
        raise typer.BadParameter("name folds, or say --dataset, --submission, --sample or --all; not both")
    wanted = Wanted(tuple(fold_ids or ()), dataset, submission, sample)
    try:
        limits = Limits.of_options(hard_limit=hard_limit, soft_limit=soft_limit, memory=memory)
        options = Options(limits, slots, sandbox_min, show_provenance, package_index)
        servers = {"kafka": kafka, "blobs": blobs, "gateway_url": gateway, "token_file": token_file}
        settings = load_settings(directory, topic_prefix=topic_prefix, **servers)
        sys.exit(run(settings, wanted, options, Console()))
    except SandboxRefused as error:
        typer.echo(f"datarun verify: no sandbox of level {sandbox_min}: {error}; {remedy(sandbox_min)}", err=True)
        sys.exit(CONFIGURATION_ERROR)
    except DatarunError as error:
        typer.echo(f"datarun verify: {error}", err=True)
        sys.exit(Exit.UNREACHABLE if isinstance(error, Retryable) else Exit.NOT_VERIFIED)


if __name__ == "__main__":
    typer.run(main)
