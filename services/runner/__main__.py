"""Starts a runner: `python -m services.runner --dir .datarun`."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

import structlog
import typer

from datarun import notify
from datarun.blobs import BlobStore
from datarun.errors import DatarunError
from datarun.events import RunnerHeartbeat, Sandbox
from datarun.gateway_client import GatewayClient, GatewayRefused
from datarun.http_blobs import CACHE_MIB, HttpBlobs, blobs_of
from datarun.log.kafka import KafkaLog
from datarun.log.queue import KafkaWorkQueue
from datarun.log.vigil import watch_topics
from datarun.settings import DEFAULT_DIR, Settings, load_settings
from datarun.telemetry import configure_logging
from datarun.topics import QUEUES
from services.runner.admission import Gate
from services.runner.control import Control
from services.runner.environments.builder import Builder
from services.runner.environments.folders import Folders
from services.runner.environments.follower import Follower
from services.runner.environments.installer import UvInstaller
from services.runner.environments.shelf import Shelf
from services.runner.execution import Executor, Limits, SandboxRefused
from services.runner.execution.sandboxes import ISOLATED, at_least, remedy
from services.runner.fences import Fences
from services.runner.heartbeat import Heart, Holdings
from services.runner.openings import Openings
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
from services.runner.publisher import Publisher
from services.runner.service import HANDOVER_SECONDS, Service
from services.runner.stopping import on_signal
from services.runner.turns import PRIORITY
from services.runner.work import Worker

CONFIGURATION_ERROR = 78
PLACED_SECONDS = 5.0
NO_GATEWAY = (
    "requests that are older than an hour, or that a queue hands out anew, are left to the reaper,"
    " which puts back what nobody has begun: pass --gateway and --token-file"
)
CLOSING_SECONDS = 0.8
"""After the last fold is handed over; a broker that is away must not hold up the end."""
PACKAGES = ("datarun", "numpy", "pandas", "scikit-learn", "scipy")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How this runner works, beside the servers it uses."""

    queues: tuple[str, ...]
    slots: int
    limits: Limits
    grace_seconds: float
    sandbox_min: int
    blob_cache_mib: int = CACHE_MIB
    package_index: str | None = None


@dataclass(frozen=True, slots=True)
class Packages:
    """How packages come to be beside this runner's own."""

    shelf: Shelf
    builder: Builder


@dataclass(frozen=True, slots=True)
class Self:
    """Who this runner is."""

    runner_id: str
    sandbox: Sandbox


def parse_queues(text: str) -> tuple[str, ...]:
    """Return the queues of `H,L,data` in the order they are asked; raises DatarunError for another name."""
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = wanted - QUEUES.keys()
    if unknown or not wanted:
        raise DatarunError(f"it takes some of {','.join(QUEUES)}, not {text!r}")
    return tuple(name for name in PRIORITY if name in wanted)


def _checked_queues(text: str) -> str:
    try:
        parse_queues(text)
    except DatarunError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def run(settings: Settings, options: Options) -> None:
    """Run folds and splits in sandboxes until SIGTERM or SIGINT."""
    work_folder = settings.directory.absolute() / "runner"
    blobs = blobs_of(settings, cache_folder=settings.directory / "blob-cache", cache_mib=options.blob_cache_mib)
    if isinstance(blobs, HttpBlobs):
        blobs.check()
    plans = at_least(options.sandbox_min)
    fences = Fences()
    folders = Folders(work_folder / "environments")
    shelf = Shelf(folders.root)
    executor = Executor(
        blobs=blobs,
        limits=options.limits,
        slots=options.slots,
        work_folder=work_folder,
        plans=plans,
        is_unwanted=lambda request: fences.cover(request.fold_id, request.attempt),
        environments=shelf,
    )
    builder = Builder(folders, UvInstaller(options.package_index), executor.try_imports)
    serve(settings, options, executor=executor, blobs=blobs, fences=fences, packages=Packages(shelf, builder))


def serve(
    settings: Settings,
    options: Options,
    *,
    executor: Executor,
    blobs: BlobStore,
    fences: Fences | None = None,
    packages: Packages | None = None,
) -> None:
    """Have an executor run what the queues bring until SIGTERM or SIGINT; running folds get the grace to finish."""
    fences = fences or Fences()
    event_log = KafkaLog(settings.brokers)
    watch_topics(settings.brokers, prefix=settings.topic_prefix)
    runner_id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    publisher = Publisher(event_log, catalogue=settings.catalogue, source=f"datarun/runner/{runner_id}")
    structlog.contextvars.bind_contextvars(runner_id=runner_id)
    try:
        me = Self(runner_id, executor.start())
        if packages is not None:
            tell, shelf = publisher.append_surely, packages.shelf
            follower = Follower(event_log, tell, shelf=shelf, catalogue=settings.catalogue, runner_id=runner_id)
            follower.start(packages.builder)
        queues = [(name, QUEUES[name]) for name in options.queues]
        control = Control(event_log, catalogue=settings.catalogue, fences=fences, on_fence=executor.cancel)
        service = Service(
            queue=KafkaWorkQueue(settings.brokers, queues, catalogue=settings.catalogue, event_log=event_log),
            worker=Worker(executor=executor, blobs=blobs, publisher=publisher, identity=me),
            catalogue=settings.catalogue,
            holdings=Holdings(),
            slot_count=options.slots,
            grace_seconds=options.grace_seconds,
            queues=options.queues,
            admission=Gate(fences, control, Openings(gateway_of(settings))),
        )
        on_signal(service.stop, seconds=options.grace_seconds + HANDOVER_SECONDS + CLOSING_SECONDS)
        heart = Heart(publisher, describe(me, options, service, packages))
        control.start(on_failure=service.stop)
        # Its first heartbeat then tells this runner the broker's time.
        control.wait_placed(PLACED_SECONDS)
        heart.start()
        _say_ready(options, me.sandbox)
        service.run()
        heart.stop()
        control.stop()
    finally:
        executor.close()
        event_log.close()
    log.info("runner.stopped")


def gateway_of(settings: Settings) -> GatewayClient | None:
    """Return the gateway to ask about requests that may have been begun before, None when none is named."""
    if settings.gateway_url is None or settings.token is None:
        log.warning("runner.no_gateway", advice=NO_GATEWAY)
        return None
    return GatewayClient.of(settings)


def _say_ready(options: Options, sandbox: Sandbox) -> None:
    status = f"{options.slots} slots, {','.join(options.queues)}, {describe_sandbox(sandbox)}"
    notify.ready(status, detail=", ".join(sandbox.mechanisms))
    log.info("runner.ready", status=status)


def describe_sandbox(sandbox: Sandbox) -> str:
    """Return the level in words, loud where a submission can see more than its fold."""
    if sandbox.level >= ISOLATED:
        return f"sandbox level {sandbox.level}"
    return f"SANDBOX LEVEL {sandbox.level} OF 3: SUBMISSIONS ARE NOT ISOLATED FROM THIS MACHINE, run only trusted code"


def describe(
    me: Self, options: Options, service: Service, packages: Packages | None
) -> Callable[[int], RunnerHeartbeat]:
    """Return the function that makes this runner's heartbeats."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}

    def heartbeat(sequence: int) -> RunnerHeartbeat:
        return RunnerHeartbeat(
            runner_id=me.runner_id,
            sequence=sequence,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=options.queues,
            slots=options.slots,
            running=service.holdings.folds(),
            splitting=service.holdings.splits(),
            versions=versions | (packages.shelf.keys() if packages else {}),
            sandbox=me.sandbox,
            stopping=service.stopping,
            skipped=service.admission.skipped,
        )

    return heartbeat


def main(  # noqa: PLR0913 - a command's options are its arguments
    *,
    directory: Directory = DEFAULT_DIR,
    kafka: KafkaServers = None,
    blobs: BlobsUrl = None,
    topic_prefix: TopicPrefix = None,
    gateway: GatewayUrl = None,
    token_file: TokenFile = None,
    queues: Annotated[
        str, typer.Option(callback=_checked_queues, help="Queues to take work from; high first, low one start in 8.")
    ] = "H,L,data",
    slots: SlotCount = CORES,
    hard_limit: HardLimit = HARD_LIMIT_SECONDS,
    soft_limit: SoftLimit = None,
    memory: Memory = MEMORY_MIB,
    grace: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds running folds get at SIGTERM before others run them.")
    ] = 8.0,
    sandbox_min: SandboxMin = ISOLATED,
    blob_cache_mib: Annotated[
        int, typer.Option(min=0, help="MiB of blobs to keep that came from the gateway.")
    ] = CACHE_MIB,
    package_index: PackageIndex = None,
) -> None:
    """Run a runner in the foreground; `datarun runner install` and `datarun runner packages` have their own help."""
    configure_logging("runner")
    try:
        servers = {"kafka": kafka, "blobs": blobs, "gateway_url": gateway, "token_file": token_file}
        settings = load_settings(directory, topic_prefix=topic_prefix, **servers)
        limits = Limits.of_options(hard_limit=hard_limit, soft_limit=soft_limit, memory=memory)
        options = Options(parse_queues(queues), slots, limits, grace, sandbox_min, blob_cache_mib, package_index)
        run(settings, options)
    except SandboxRefused as error:
        typer.echo(f"datarun runner: no sandbox of level {sandbox_min}: {error}; {remedy(sandbox_min)}", err=True)
        sys.exit(CONFIGURATION_ERROR)
    except GatewayRefused as error:
        typer.echo(f"datarun runner: {error}; make a token with `datarun token add NAME --role runner`", err=True)
        sys.exit(CONFIGURATION_ERROR)
    except DatarunError as error:
        typer.echo(f"datarun runner: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
