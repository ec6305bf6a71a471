"""Running recorded folds again: an executor as a runner's, in a folder of its own, and a line for each fold."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from datarun.blobs import BlobStore
from datarun.log import EventLog
from datarun.topics import Catalogue
from services.runner.environments.builder import Builder
from services.runner.environments.folders import Folders
from services.runner.environments.follower import Follower
from services.runner.environments.installer import UvInstaller
from services.runner.environments.shelf import Shelf
from services.runner.execution import Executor, Limits
from services.runner.execution.sandboxes import at_least
from services.runner.publisher import Publisher
from services.runner.tested import TestedFold
from services.runner.verdicts import Tally, lines
from services.runner.verification import NotVerifiable, Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Options:
    """How folds are run again."""

    limits: Limits
    slots: int
    sandbox_min: int
    show_provenance: bool
    package_index: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the records and the bytes of folds are."""

    log: EventLog
    blobs: BlobStore
    catalogue: Catalogue


@contextmanager
def verifier_of(recorded: Recorded, options: Options, directory: Path) -> Iterator[Verifier]:
    """Start an executor as a runner's, in a folder of its own; raises SandboxRefused."""
    event_log, catalogue = recorded.log, recorded.catalogue
    verifier_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    work_folder = directory.absolute() / "verifier" / verifier_id
    plans = at_least(options.sandbox_min)
    # Those that a runner with this folder has built are used; what is missing is built, and nobody is told.
    folders = Folders(directory.absolute() / "runner" / "environments")
    shelf = Shelf(folders.root)
    follower = Follower(event_log, lambda _: None, shelf=shelf, catalogue=catalogue, runner_id=verifier_id)
    executor = Executor(
        blobs=recorded.blobs,
        limits=options.limits,
        slots=options.slots,
        work_folder=work_folder,
        plans=plans,
        environments=shelf,
    )
    publisher = Publisher(event_log, catalogue=catalogue, source=f"datarun/verifier/{verifier_id}")
    try:
        sandbox = executor.start()
        follower.start(Builder(folders, UvInstaller(options.package_index), executor.try_imports))
        yield Verifier(executor, event_log, publisher, verifier_id, sandbox)
    finally:
        follower.stop()
        executor.close()
        shutil.rmtree(work_folder, ignore_errors=True)


def verify_all(verifier: Verifier, folds: list[TestedFold], tally: Tally, options: Options, console: Console) -> None:
    """Run folds again, as many at once as there are slots, print a line each as they come, and count them."""

    def verdict_of(fold: TestedFold) -> Verdict | NotVerifiable:
        try:
            return verifier.verify(fold)
        except NotVerifiable as problem:
            return problem

    pool = ThreadPoolExecutor(options.slots, thread_name_prefix="verify")
    try:
        with bar_on(console) as bar:
            task = bar.add_task("running again", total=len(folds))
            for fold, verdict in zip(folds, pool.map(verdict_of, folds), strict=True):
                for line in lines(fold, verdict, tally, show_provenance=options.show_provenance):
                    say(console, line)
                bar.advance(task)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def bar_on(console: Console) -> Progress:
    """Return a bar that only a terminal shows."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)
