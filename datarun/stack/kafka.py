"""A real Apache Kafka on this machine: one KRaft node on the loopback interface, in a folder of its own."""

from __future__ import annotations

import base64
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from datarun.errors import DatarunError
from datarun.stack.cache import fill
from datarun.stack.java import Java
from datarun.stack.ports import LOOPBACK, free_ports
from datarun.stack.process import Command

FORMAT_SECONDS = 60
CONNECT_SECONDS = 0.2
PROBE_SECONDS = 2.0
JVM_FLAGS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    # Otherwise every JVM writes a file of counters to /tmp.
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    # The configuration is in kafka.properties already, and printing it takes hundreds of lines.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
)
NOISY_MAJOR = 24
# Java 24 and later warn about what zstd, lz4 and Kafka's own buffers have always done.
QUIET_FLAGS_24 = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")


class KafkaUnusable(DatarunError):
    """The local Kafka cannot be used."""


@dataclass(frozen=True)
class KafkaProgram:
    """What runs a broker: a Java, Kafka's jars, and the archive of loaded classes if there is one."""

    java: Java
    jars: Sequence[Path]
    archive: Path | None = None

    def argv(self, main_class: str, *arguments: str | Path, flags: Sequence[str] = ()) -> list[str | Path]:
        """Return a command line; the archive only fits the same jars in the same order and the same flags."""
        quiet = QUIET_FLAGS_24 if self.java.major >= NOISY_MAJOR else ()
        class_path = ":".join(str(jar) for jar in self.jars)
        return [
            self.java.path,
            *JVM_FLAGS,
            *quiet,
            *self._archive_flags(),
            *flags,
            "-cp",
            class_path,
            main_class,
            *arguments,
        ]

    def _archive_flags(self) -> tuple[str, ...]:
        if self.archive is None:
            return ()
        if self.java.has_aot_cache:
            return (f"-XX:AOTCache={self.archive}",)
        return (f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto")


@dataclass(frozen=True)
class Kafka:
    """One broker: its folder and its two ports on 127.0.0.1."""

    program: KafkaProgram
    folder: Path
    port: int
    controller_port: int

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self, template: Path) -> None:
        """Lay the data folder out from a formatted template, once, under a cluster id of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data"
        if not data.exists():
            partial = self.folder / "data.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(template, partial)
            _give_identity(partial / "meta.properties")
            partial.rename(data)
        temporary = self.folder / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        self._properties.write_text(render_properties(self._settings()), encoding="utf-8")

    def command(self, *flags: str) -> Command:
        """Return how to run the broker in the foreground."""
        # The compression libraries unpack themselves into the temporary folder.
        own = (f"-Djava.io.tmpdir={self.folder / 'tmp'}", *flags)
        return Command(
            argv=self.program.argv("kafka.Kafka", self._properties, flags=own),
            cwd=self.folder,
            death_signal=signal.SIGTERM,
        )

    def is_ready(self) -> bool:
        """Tell whether the broker answers a request for its metadata."""
        from datarun.log.admin import probe

        return accepts_connections(self.port) and probe(self.bootstrap, PROBE_SECONDS)

    @property
    def _properties(self) -> Path:
        return self.folder / "kafka.properties"

    def _settings(self) -> dict[str, str]:
        client, controller = f"PLAINTEXT://{LOOPBACK}:{self.port}", f"CONTROLLER://{LOOPBACK}:{self.controller_port}"
        return {
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "listeners": f"{client},{controller}",
            "advertised.listeners": client,
            "log.dirs": str(self.folder / "data"),
        }


def local_kafka(program: KafkaProgram, folder: Path, *, ports: Sequence[int] = ()) -> Kafka:
    """Return the broker of a folder (not started), on the given ports or on free ones."""
    port, controller_port = ports or free_ports(2)
    return Kafka(program, folder.absolute(), port, controller_port)


def ensure_template(program: KafkaProgram, cache: Path) -> Path:
    """Return a formatted data folder, made once: a copy costs a millisecond, formatting a JVM."""

    def make(partial: Path) -> None:
        partial.mkdir(parents=True)
        properties = partial / "kafka.properties"
        settings = {
            "controller.quorum.voters": f"1@{LOOPBACK}:1",
            "listeners": f"PLAINTEXT://{LOOPBACK}:2,CONTROLLER://{LOOPBACK}:1",
            "log.dirs": str(partial / "data"),
        }
        properties.write_text(render_properties(settings), encoding="utf-8")
        argv = program.argv("kafka.tools.StorageTool", "format", "-t", _random_id(), "-c", properties)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False)
        if done.returncode != 0:
            raise KafkaUnusable(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    return fill(cache / "template", make) / "data"


def render_properties(settings: Mapping[str, str]) -> str:
    """Return a broker's configuration file: what every local broker has, and its own folder and ports."""
    common = resources.files(__package__).joinpath("kafka.properties").read_text(encoding="utf-8")
    own = "".join(f"{name}={value.replace(chr(92), chr(92) * 2)}\n" for name, value in settings.items())
    return common + own


def accepts_connections(port: int) -> bool:
    """Tell whether something listens, which costs less to ask than a Kafka client does."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _give_identity(meta: Path) -> None:
    own = {"cluster.id": _random_id(), "directory.id": _random_id()}
    lines = [line.partition("=") for line in meta.read_text(encoding="utf-8").splitlines()]
    meta.write_text("".join(f"{key}{is_}{own.get(key, value)}\n" for key, is_, value in lines), encoding="utf-8")


def _random_id() -> str:
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return name
