"""One fold, in the child: train on what was sent, say so, then predict what is sent next, twice."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from . import workflow
from .elements import elements_of
from .files import write_files, write_package
from .parcels import unpack
from .process import flush_output
from .wire import Message, close, receive, sealed, send

STAGES = 2
Predict = Callable[[Any, int], Any]
"""(X, number of rows to predict) -> predictions."""


def run(sock: socket.socket, box: Path, job: Message, descriptors: Sequence[int]) -> None:
    """Train, then predict the full train part and the test part as their rows arrive."""
    code, rows, *specific = descriptors
    write_package(box, job["module_path"], job["files"], code)
    X, y = unpack(job["headers"], rows)
    if specific:
        write_files(box / "organiser", job["specific_files"], specific[0])
        sys.path.insert(0, str(box / "organiser"))
    close(descriptors)
    predict = _train_custom(job, X, y) if specific else _train_standard(job, X, y)
    del X, y
    flush_output()
    send(sock, {"event": "trained"})
    for _ in range(STAGES):
        _predict(sock, predict)


def _train_standard(job: Message, X: Any, y: Any) -> Predict:
    model = workflow.train(job["module_path"], elements_of(job["workflow_elements"]), X, y)
    return lambda X_all, _rows: workflow.predict(model, X_all)


def _train_custom(job: Message, X: Any, y: Any) -> Predict:
    specific = import_module(job["specific"])
    model = specific.train_submission(job["module_path"], X, y, np.arange(len(y)))
    return lambda X_all, rows: specific.test_submission(model, X_all, range(rows))


def _predict(sock: socket.socket, predict: Predict) -> None:
    received = receive(sock)
    if received is None:
        raise ConnectionResetError("the runner is gone")
    message, descriptors = received
    (X,) = unpack(message["headers"], descriptors[0])
    close(descriptors)
    predictions = workflow.as_numbers(predict(X, message["rows"]))
    content = sealed([predictions.reshape(-1).view(np.uint8).data] if predictions.size else [])
    flush_output()
    send(sock, {"event": "predicted", "dtype": predictions.dtype.str, "shape": predictions.shape}, [content])
    close([content])
