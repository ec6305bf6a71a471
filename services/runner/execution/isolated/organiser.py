"""A dataset's own specific.py, in a child: prepare the data once, and cut a fold's rows out of it.

What it returns is pickled here and unpickled only in the process of a submission, never by the runner.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .files import regular_files, write_files
from .parcels import pack
from .process import flush_output
from .rows import check_positions, read_positions
from .wire import Message, close, send
from .workflow import rows_of


def prepare(sock: socket.socket, box: Path, job: Message, descriptors: Sequence[int]) -> None:
    """Run prepare_data in a folder that holds the raw files, then send every file that is there."""
    folder, specific = _load(box, job, descriptors)
    specific.prepare_data(str(folder))
    flush_output()
    for name, descriptor in regular_files(folder):
        send(sock, {"event": "file", "name": name}, [descriptor])
        close([descriptor])
    send(sock, {"event": "done"})


def slice_fold(sock: socket.socket, box: Path, job: Message, descriptors: Sequence[int]) -> None:
    """Send the fold's rows and labels, then the X of the full train part and of the test part."""
    folder, specific = _load(box, job, descriptors[:1])
    positions = read_positions(descriptors[1])
    X, y = specific.get_train_data(str(folder))
    check_positions(positions, len(y))
    X_test, y_test = specific.get_test_data(str(folder))
    parcels = [pack([rows_of(X, positions), rows_of(y, positions)]), pack([X]), pack([X_test])]
    flush_output()
    answer = {
        "event": "sliced",
        "train_rows": len(y),
        "test_rows": len(y_test),
        "headers": [headers for headers, _ in parcels],
    }
    send(sock, answer, [descriptor for _, descriptor in parcels])


def _load(box: Path, job: Message, descriptors: Sequence[int]) -> tuple[Path, Any]:
    folder = box / "data"
    write_files(folder, job["files"], descriptors[0])
    close(descriptors)
    sys.path.insert(0, str(folder))
    return folder, import_module(job["module"])
