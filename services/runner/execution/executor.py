"""The executor: runs folds and splits in fresh processes, as many at once as it has slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from datarun.blobs import BlobStore
from datarun.errors import FoldFailure
from datarun.events import Dataset, FoldRequested, NamedBlob, Sandbox, Split, SplitRequested
from services.runner.execution import jobs, messages
from services.runner.execution.box import Box
from services.runner.execution.bundles import Bundle, Bundles
from services.runner.execution.conversation import Conversation
from services.runner.execution.data import FoldData, LoaderProcess, get
from services.runner.execution.isolated import wire
from services.runner.execution.nursery import Nursery
from services.runner.execution.outcomes import Failed, Limits, Tested, Trained
from services.runner.execution.scrubbing import Scrubber
from services.runner.execution.stages import Stages, failed

SPECIFIC = "specific.py"


class Executor:
    """Runs folds and splits; every method but start and close may be called from several threads at once."""

    def __init__(self, *, blobs: BlobStore, limits: Limits, slots: int, work_folder: Path) -> None:
        self._limits = limits
        self._blobs = blobs
        self._bundles = Bundles(blobs)
        self._loader = LoaderProcess(blobs)
        self._nursery = Nursery(limits, spare=slots, work_folder=work_folder)
        self._announcers = ThreadPoolExecutor(slots, thread_name_prefix="announce")
        self._lock = threading.Lock()
        self._running: dict[int, Box] = {}

    def start(self) -> Sandbox:
        """Start the loader and the zygote, wait until warm, and return the isolation really in force."""
        self._loader.start()
        sandbox = self._nursery.start()
        self._nursery.replenish()
        return sandbox

    def run(self, request: FoldRequested, *, on_trained: Callable[[Trained], None]) -> Tested | Failed:
        """Run a fold within the hard limit; raises Retryable for a fault of the platform.

        `on_trained` is called once, in another thread, while the test part is being predicted.
        """
        deadline = time.monotonic() + self._limits.hard_seconds
        try:
            with self._data_of(request, deadline) as data, self._code_of(request) as (job, descriptors):
                return self._run(request, data, job, descriptors)
        except FoldFailure as failure:
            return failed(failure)

    def split(self, request: SplitRequested) -> Split | Failed:
        """Split a dataset; raises Retryable for a fault of the platform."""

    def cancel(self, fold_id: int) -> None:
        """Kill the fold if it runs; its run() then returns a failure with cause `cancelled`."""
        with self._lock:
            box = self._running.get(fold_id)
        if box is not None:
            box.cancel()
