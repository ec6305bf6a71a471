"""An archive of Kafka's classes as the JVM has loaded and linked them: it halves the broker's start.

Java 25 writes it as an AOT cache, older ones as a class-data archive; a JVM that finds it unfit runs without it.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from datarun.stack.cache import fill
from datarun.stack.kafka import Kafka, KafkaProgram, KafkaUnusable, ensure_template, local_kafka
from datarun.stack.process import open_log, tail

READY_SECONDS = 60
WRITING_SECONDS = 120
POLL_SECONDS = 0.05


def ensure_archive(program: KafkaProgram, cache: Path) -> KafkaProgram:
    """Return the program with its archive, trained by running a broker once for this Java and these jars."""
    target = archive_path(program, cache)
    fill(target, lambda partial: _train(program, cache, partial))
    return replace(program, archive=target)


def archive_path(program: KafkaProgram, cache: Path) -> Path:
    """Return where the archive of this Java and these jars belongs."""
    return cache / f"classes-java-{program.java.version}-{_digest(program)}.{_suffix(program)}"


def _train(program: KafkaProgram, cache: Path, target: Path) -> None:
    from datarun.log.admin import create_topics

    folder = target.with_name(f"{target.name}.training")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        kafka = local_kafka(program, folder)
        kafka.prepare(ensure_template(program, cache))
        option = "AOTCacheOutput" if program.java.has_aot_cache else "ArchiveClassesAtExit"
        command = kafka.command(f"-XX:{option}={target}")
        log = open_log(folder / "kafka.log")
        with subprocess.Popen(command.argv, stdout=log, stderr=log, **command.popen_options()) as process:
            try:
                _await_ready(process, kafka)
                # Classes are archived as far as they were used.
                create_topics(kafka.bootstrap)
                process.send_signal(signal.SIGTERM)
                process.wait(WRITING_SECONDS)
            finally:
                process.kill()
        if not target.exists():
            raise KafkaUnusable(f"no class archive was written:\n{tail(folder / 'kafka.log')}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _await_ready(process: subprocess.Popen[bytes], kafka: Kafka) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not kafka.is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise KafkaUnusable(f"Kafka did not start:\n{tail(kafka.folder / 'kafka.log')}")
        time.sleep(POLL_SECONDS)


def _suffix(program: KafkaProgram) -> str:
    return "aot" if program.java.has_aot_cache else "jsa"


def _digest(program: KafkaProgram) -> str:
    # The JVM refuses an archive whose jars have other sizes or times than those it was made with.
    stats = [(str(jar), jar.stat().st_size, jar.stat().st_mtime_ns) for jar in program.jars]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:12]
