"""What the tests of the execution need: an executor, datasets in a blob store, requests with few words."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from datarun.blobs import LocalBlobs
from datarun.events import (
    CustomSplit,
    Dataset,
    FoldRequested,
    NamedBlob,
    Priority,
    Sandbox,
    Split,
    SplitRequested,
    StandardSplit,
)
from services.runner.execution import Executor, Failed, Limits, Tested, Trained
from services.runner.execution.sandboxes import Plan

GOOD = """
    import numpy as np

    class Classifier:
        def fit(self, X, y):
            self.classes = len(np.unique(y))

        def predict_proba(self, X):
            return np.full((len(X), self.classes), 1 / self.classes)
"""

ROWS = 75
"""The rows of either half of `two_classes`."""


class Workbench:
    """An executor with its blobs."""

    def __init__(self, folder: Path, limits: Limits, *, slots: int = 2, plans: Iterable[Plan] | None = None) -> None:
        self.blobs = LocalBlobs(folder / "blobs")
        self.limits = limits
        self.executor = Executor(blobs=self.blobs, limits=limits, slots=slots, work_folder=folder / "work", plans=plans)
        self.sandbox: Sandbox
        self._ids = itertools.count(1)

    def named(self, files: dict[str, str | bytes]) -> tuple[NamedBlob, ...]:
        """Store files; text is dedented."""
        contents = {n: textwrap.dedent(c).encode() if isinstance(c, str) else c for n, c in files.items()}
        return tuple(NamedBlob(name=name, blob=self.blobs.put(content)) for name, content in contents.items())

    def dataset(self, files: dict[str, str | bytes], elements: str, *, target: str = "target") -> Dataset:
        """Store an unsplit dataset."""
        return Dataset(
            raw_data_id=next(self._ids),
            name="data",
            target_column=target,
            workflow_elements=elements,
            files=self.named(files),
        )

    def split_request(self, dataset: Dataset, *, held_out: float | None = None) -> SplitRequested:
        """Return a request for a standard split, or a custom one when nothing is held out."""
        return SplitRequested(
            raw_data_id=dataset.raw_data_id,
            attempt=1,
            task_id="task",
            plan=CustomSplit() if held_out is None else StandardSplit(held_out_test=held_out, random_state=42),
            dataset=dataset,
            requested_by="tester",
        )

    def split(self, dataset: Dataset, *, held_out: float | None = None) -> Dataset:
        """Return the dataset with its split."""
        split = self.executor.split(self.split_request(dataset, held_out=held_out))
        assert isinstance(split, Split), split
        return dataset.model_copy(update={"split": split})

    def request(self, dataset: Dataset, files: dict[str, str | bytes], train_is: Any) -> FoldRequested:
        """Return a request to run a submission on some rows."""
        indices = np.asarray(train_is, dtype="<i8").tobytes()
        return FoldRequested(
            fold_id=next(self._ids),
            attempt=1,
            submission_id=24,
            priority=Priority.HIGH,
            dataset=dataset,
            files=self.named(files),
            train_is=self.blobs.put(indices),
            test_is=self.blobs.put(b""),
            task_id="task",
            requested_by="tester",
        )

    def run(
        self,
        dataset: Dataset,
        files: dict[str, str | bytes],
        train_is: Any,
        *,
        on_trained: Callable[[Trained], None] = lambda _: None,
    ) -> Tested | Failed:
        """Run a submission on some rows."""
        return self.executor.run(self.request(dataset, files, train_is), on_trained=on_trained)


def two_classes(bench: Workbench) -> Dataset:
    """A table of two features and two classes, split in halves."""
    values = np.random.RandomState(0).rand(2 * ROWS, 2).round(6)
    lines = [f"{a},{b},{int(a > 0.5)}" for a, b in values]
    raw = ("a,b,target\n" + "\n".join(lines) + "\n").encode()
    return bench.split(bench.dataset({"raw.csv": raw}, "classifier"), held_out=0.5)


def open_files() -> list[str]:
    """Return what the descriptors of this process lead to, but for connections: other tests' clients come and go."""
    found = []
    connections = {connection.fd for connection in psutil.Process().net_connections("inet")}
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them, and what another thread has closed
            if int(descriptor.name) not in connections:
                found.append(str(descriptor.readlink()))
    return sorted(found)


def classifier(*, top: str = "", fit: str = "pass", predict: str = "return np.full((len(X), 2), 0.5)") -> str:
    """A classifier with these lines in its module, its fit and its predict_proba."""
    return f"""
import ctypes, os, signal, socket, subprocess, sys, threading, time
import numpy as np
{top}
class Classifier:
    def fit(self, X, y):
        self.calls = 0
        {fit}
    def predict_proba(self, X):
        self.calls += 1
        {predict}
"""


@contextmanager
def workbench(
    folder: Path, limits: Limits, *, slots: int = 2, plans: Iterable[Plan] | None = None
) -> Iterator[Workbench]:
    """Start an executor and close it in the end."""
    bench = Workbench(folder, limits, slots=slots, plans=plans)
    try:
        bench.sandbox = bench.executor.start()
        yield bench
    finally:
        bench.executor.close()
