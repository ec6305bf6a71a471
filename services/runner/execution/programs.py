"""Starting the loader and the zygote: by exec, with an empty environment, a socket as their standard input."""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

from services.runner.execution.isolated import wire

FOLDER = Path(__file__).resolve().parent
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")
_ENVIRONMENT = {
    **{f"{library}_NUM_THREADS": "1" for library in THREADS},
    "VECLIB_MAXIMUM_THREADS": "1",
    "JOBLIB_MULTIPROCESSING": "0",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
}
STOP_SECONDS = 1.5
_BOOT = "import sys; sys.path.append(sys.argv[1]); from isolated.{module} import main; main(sys.argv[2:])"


def start(module: str, *arguments: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start one of the isolated programs; -P and -s keep its imports to the installed libraries."""
    ours, theirs = wire.pair()
    argv = [sys.executable, "-P", "-s", "-u", "-c", _BOOT.format(module=module), str(FOLDER), *arguments]
    try:
        process = subprocess.Popen(
            argv, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=_ENVIRONMENT, cwd="/", start_new_session=True
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def stop(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """End a program and wait for it: it ends, and sweeps, by itself when its channel closes, or is killed."""
    control.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def readable_folders() -> list[str]:
    """Return what a program must be able to read: interpreter, libraries, its own code."""
    paths = sysconfig.get_paths()
    folders = {sys.prefix, sys.base_prefix, sys.base_exec_prefix, paths["purelib"], paths["platlib"]}
    return sorted({*folders, str(FOLDER / "isolated"), str(Path(sys.executable).parent)})


@functools.cache
def server_paths() -> tuple[str, ...]:
    """Return the folders whose names no client needs to see, the longest first."""
    paths = sysconfig.get_paths()
    named = {paths["purelib"], paths["platlib"], paths["stdlib"], sys.prefix, sys.base_prefix, str(FOLDER)}
    return tuple(f"{path}/" for path in sorted(named - {"/usr"}, key=len, reverse=True))
