"""The standard split, in a child since the data is a client's: one CSV file in, the train and the test part out."""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from .files import write_files
from .wire import Message, close, sealed, send


def split(sock: socket.socket, box: Path, job: Message, descriptors: Sequence[int]) -> None:
    """Send both parts as CSV files with their numbers of rows."""
    write_files(box / "data", job["files"], descriptors[0])
    close(descriptors)
    ((name, _size),) = job["files"]
    frame = pd.read_csv(box / "data" / name)
    train, test = train_test_split(frame, test_size=job["held_out_test"], random_state=job["random_state"])
    parts = [sealed([_csv(part)]) for part in (train, test)]
    send(sock, {"event": "split", "train_rows": len(train), "test_rows": len(test)}, parts)


def _csv(frame: pd.DataFrame) -> bytes:
    text = io.StringIO()
    frame.to_csv(text, index=False)
    return text.getvalue().encode()
