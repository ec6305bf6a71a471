"""What a fold's child is sent of its dataset, and from where: the loader process for standard datasets."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from datarun.blobs import BlobStore
from datarun.errors import BlobCorrupt
from datarun.events import Blob, Dataset, Split
from services.runner.execution import messages, programs
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.elements import elements_of
from services.runner.execution.isolated.wire import Garbled, Message
from services.runner.execution.outcomes import ExecutionUnavailable, InputsCorrupt

CAPACITY_BYTES = 512 << 20
SHORTEST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Parcel:
    """Packed values: a header for each, and the memory file they are in."""

    headers: list[Message]
    descriptor: int


@dataclass(frozen=True, slots=True)
class FoldData:
    """The parcels of a fold in the order they are sent, and how many predictions are due."""

    rows: Parcel
    full_train: Parcel
    test: Parcel
    train_rows: int
    test_rows: int

    def close(self) -> None:
        """Let go of the memory files."""
        wire.close([parcel.descriptor for parcel in (self.rows, self.full_train, self.test)])


def fold_data(answer: Message, descriptors: Sequence[int]) -> FoldData:
    """Return the data of a fold from the answer of whoever cut it; raises Garbled when that is not one."""
    headers, counts = answer.get("headers"), (answer.get("train_rows"), answer.get("test_rows"))
    if not isinstance(headers, list) or not len(headers) == len(descriptors) == 3:  # noqa: PLR2004 - rows, full train part, test part
        raise Garbled("an answer does not hold a fold's data")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise Garbled("an answer does not count its rows")
    parcels = [Parcel(header, descriptor) for header, descriptor in zip(headers, descriptors, strict=True)]
    rows, full_train, test = parcels
    return FoldData(rows, full_train, test, train_rows=answer["train_rows"], test_rows=answer["test_rows"])


def get(blobs: BlobStore, blob: Blob) -> bytes:
    """Return a blob's bytes; corrupt ones are the platform's fault as missing ones are."""
    try:
        return blobs.get(blob)
    except BlobCorrupt as error:
        raise InputsCorrupt(str(error)) from error


class LoaderProcess:
    """The loader, kept alive; one request at a time."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def start(self) -> None:
        """Start the process unless it runs."""
        with self._lock:
            self._start()

    def _start(self) -> socket.socket:
        if self._running is None or self._running[0].poll() is not None:
            self._stop()
            self._running = programs.start("loader", str(CAPACITY_BYTES))
        return self._running[1]

    def slice(self, dataset: Dataset, split: Split, train_is: Blob, *, patience_seconds: float) -> FoldData:
        """Return the data of a fold; raises FoldFailure when there is no such fold, Retryable when it cannot tell."""
        request = {
            "ask": "slice",
            "train": _named(split.train).sha256,
            "test": _named(split.test).sha256,
            "target": dataset.target_column,
            "framed": "feature_extractor" in elements_of(dataset.workflow_elements),
        }
        deadline = time.monotonic() + patience_seconds
        indices = wire.sealed([get(self._blobs, train_is)])
        try:
            answer, descriptors = self._ask(request, indices, deadline)
            if "missing" in answer:
                self._store(
                    [part for part in (split.train, split.test) if part and part.sha256 in answer["missing"]], deadline
                )
                answer, descriptors = self._ask(request, indices, deadline)
        finally:
            wire.close([indices])
        return fold_data(answer, descriptors)

    def _store(self, parts: Sequence[Blob], deadline: float) -> None:
        for part in parts:
            content = wire.sealed([get(self._blobs, part)])
            try:
                self._ask({"ask": "store", "sha256": part.sha256}, content, deadline)
            finally:
                wire.close([content])

    def _ask(self, request: Message, descriptor: int, deadline: float) -> tuple[Message, list[int]]:
        with self._lock:
            try:
                control = self._start()
                control.settimeout(max(SHORTEST_SECONDS, deadline - time.monotonic()))
                wire.send(control, request, [descriptor])
                received = wire.receive(control)
            except OSError as error:
                self._stop()
                raise ExecutionUnavailable("the loader does not answer") from error
            if received is None:
                self._stop()
                raise ExecutionUnavailable("the loader died")
        if "failed" in received[0]:
            raise messages.split_refusal(received[0]["failed"])
        return received

    def _stop(self) -> None:
        if self._running is not None:
            programs.stop(*self._running)
            self._running = None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._stop()


def _named(part: Blob | None) -> Blob:
    if part is None:
        raise messages.split_refusal(repr(ValueError("the split names no train or test part")))
    return part
