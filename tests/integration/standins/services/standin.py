"""A service as the supervisor knows it: it says that it is ready and ends on SIGTERM; variables make it fail."""

import argparse
import os
import signal
import sys
from pathlib import Path

from datarun import notify
from datarun.stack.connection import Connection


def run(name: str) -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--session-timeout", type=float)
    parser.add_argument("--sandbox-min", type=int)
    options = parser.parse_args()
    connection = Connection.load(options.dir)
    if os.environ.get("STANDIN_FAILS") == name:
        sys.stderr.write("\n".join(f"line {number}" for number in range(40)))
        sys.exit(5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    if os.environ.get("STANDIN_NEVER_READY") != name:
        notify.ready(connection.gateway_url if options.port else "")
    while True:
        signal.pause()
