"""The executor: runs folds and splits in fresh processes, as many at once as it has slots."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from datarun.blobs import BlobStore
from datarun.errors import FoldFailure
from datarun.events import FoldRequested, NamedBlob, Sandbox, Split, SplitRequested, Stage, StandardSplit
from services.runner.execution import datasets, jobs, messages
from services.runner.execution.box import Box
from services.runner.execution.bundles import Bundle, Bundles
from services.runner.execution.conversation import Conversation
from services.runner.execution.data import FoldData, LoaderProcess, get
from services.runner.execution.deadlines import Deadline
from services.runner.execution.environment import Environment, Environments, NoEnvironments
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Message
from services.runner.execution.nursery import Nursery
from services.runner.execution.outcomes import ExecutionUnavailable, Failed, Limits, Tested, Trained
from services.runner.execution.provenance import with_provenance
from services.runner.execution.sandboxes import Plan, strongest_first
from services.runner.execution.scrubbing import Scrubber
from services.runner.execution.stages import Stages, failed

T = TypeVar("T")
IMPORT_SECONDS = 120.0


class Executor:
    """Runs folds and splits; run, split and cancel may be called from several threads at once."""

    def __init__(  # noqa: PLR0913 - what an executor is made of, by name
        self,
        *,
        blobs: BlobStore,
        limits: Limits,
        slots: int,
        work_folder: Path,
        plans: Iterable[Plan] | None = None,
        is_unwanted: Callable[[FoldRequested], bool] = lambda _: False,
        environments: Environments | None = None,
    ) -> None:
        self._limits = limits
        self._blobs = blobs
        self._environments = environments or NoEnvironments()
        self._bundles = Bundles(blobs)
        self._loader = LoaderProcess(blobs)
        self._nursery = Nursery(
            limits,
            plans=plans or strongest_first(),
            spare=slots,
            work_folder=work_folder,
            environments=self._environments.root,
        )
        self._announcers = ThreadPoolExecutor(slots, thread_name_prefix="announce")
        self._lock = threading.Lock()
        self._running: dict[Box, FoldRequested] = {}
        self._is_unwanted = is_unwanted

    def start(self) -> Sandbox:
        """Start the loader and the zygote, wait until warm, and return the isolation really in force."""
        self._loader.start()
        sandbox = self._nursery.start()
        self._nursery.replenish()
        return sandbox

    def run(self, request: FoldRequested, *, on_trained: Callable[[Trained], None]) -> Tested | Failed:
        """Run a fold within the hard limit; raises Retryable for a fault of the platform.

        `on_trained` is called at most once, in another thread, while the test part is being predicted; what it
        raises, this raises.
        """
        deadline = Deadline(self._limits.hard_seconds)

        def announce(trained: Trained) -> Future[None]:
            return self._announcers.submit(on_trained, trained)

        try:
            with ExitStack() as stack:
                with deadline.paused():
                    environment = stack.enter_context(self._environments.use(request.dataset.raw_data_id))
                data = self._data_of(request, deadline, environment)
                if isinstance(data, Failed):
                    return data
                stack.callback(data.close)
                job, descriptors = self._job_of(request, data)
                stack.callback(wire.close, descriptors)
                box = stack.enter_context(self._child(deadline, request, environment))
                scrub = Scrubber(box.folder, job["module_path"], environment)
                stages = Stages(box, limits=self._limits, deadline=deadline, scrub=scrub)
                outcome = stages.run(job, descriptors, data, announce=announce)
                self._blame_nobody(request, outcome)
                return with_provenance(outcome, request, runtime=box.runtime, sandbox=box.sandbox)
        except FoldFailure as failure:
            return failed(failure)

    def split(self, request: SplitRequested) -> Split | Failed:
        """Split a dataset within the hard limit; raises Retryable for a fault of the platform."""
        plan, task_id, limit_mib = request.plan, request.task_id, self._limits.disk_mib
        deadline = Deadline(self._limits.hard_seconds)

        def custom(child: Conversation, files: Bundle) -> Split:
            module = datasets.module_of(request.dataset)
            prepared = jobs.prepare(child, files, module, blobs=self._blobs, limit_mib=limit_mib)
            return Split(kind="custom", task_id=task_id, prepared=prepared)

        try:
            if isinstance(plan, StandardSplit):
                standard = partial(jobs.split, plan=plan, task_id=task_id, blobs=self._blobs, limit_mib=limit_mib)
                return self._converse(standard, [datasets.table_of(request.dataset)], deadline=deadline)
            with self._environments.use(request.dataset.raw_data_id) as environment:
                return self._converse(custom, request.dataset.files, deadline=deadline, environment=environment)
        except FoldFailure as failure:
            return failed(failure)

    def try_imports(self, environment: Environment, modules: Sequence[str]) -> str | None:
        """Import modules as a fold of the environment would; returns why that fails, or None.

        Raises Retryable for a fault of the platform.
        """
        deadline = Deadline(IMPORT_SECONDS)
        limits = replace(self._limits, hard_seconds=IMPORT_SECONDS, soft_seconds=None)
        with self._child(deadline, None, environment) as box:
            child = Conversation(box, limits=limits, deadline=deadline)
            try:
                child.send({"job": "import", "modules": list(modules)}, [])
                child.answer(Stage.TRAIN, "imported")
            except FoldFailure as failure:
                box.drain_log()
                text = f"{box.capture.text()}\n{failure}".removesuffix("\n")
                return Scrubber(box.folder, environment=environment)(text)
        return None

    def cancel(self, fold_id: int, attempt: int) -> None:
        """Kill the fold's runs of attempts up to this one; each then returns a failure with cause `cancelled`."""
        with self._lock:
            for box, request in self._running.items():
                if request.fold_id == fold_id and request.attempt <= attempt:
                    box.cancel()

    def close(self) -> None:
        """End every process, running folds included."""
        self._nursery.close()
        self._loader.close()
        self._announcers.shutdown(wait=False, cancel_futures=True)
        self._bundles.close()

    def _blame_nobody(self, request: FoldRequested, outcome: Tested | Failed) -> None:
        """Raise ExecutionUnavailable for a module that may be missing only because this runner could not install it."""
        is_missing = isinstance(outcome, Failed) and "ModuleNotFoundError(" in outcome.message
        if is_missing and self._environments.lacks(request.dataset.raw_data_id):
            raise ExecutionUnavailable("a package that other runners have could not be installed on this one")

    def _data_of(
        self, request: FoldRequested, deadline: Deadline, environment: Environment | None
    ) -> FoldData | Failed:
        dataset, split = request.dataset, datasets.split_of(request.dataset)
        if split.kind == "standard":
            with deadline.paused():
                return self._loader.slice(dataset, split, request.train_is, patience_seconds=deadline.seconds)
        with ExitStack() as stack:
            indices = wire.sealed([get(self._blobs, request.train_is)])
            stack.callback(wire.close, [indices])

            def cut(child: Conversation, files: Bundle) -> FoldData:
                return jobs.cut(child, files, datasets.module_of(dataset), indices)

            files = datasets.files_of(dataset, split)
            return self._converse(cut, files, deadline=deadline, request=request, environment=environment)

    def _job_of(self, request: FoldRequested, data: FoldData) -> tuple[Message, list[int]]:
        """Return the job of a fold's child and what goes with it: its code, its rows, the dataset's own code."""
        code = self._bundles.get(request.files)
        job: Message = {
            "job": "fold",
            "module_path": f"submission.sub_{request.submission_id}",
            "workflow_elements": request.dataset.workflow_elements,
            "files": code.files,
            "headers": data.rows.headers,
        }
        descriptors = [code.descriptor, os.dup(data.rows.descriptor)]
        if datasets.split_of(request.dataset).kind == "custom":
            own = self._bundles.get(datasets.code_of(request.dataset))
            job |= {"specific": datasets.module_of(request.dataset), "specific_files": own.files}
            descriptors.append(own.descriptor)
        return job, descriptors

    def _converse(
        self,
        talk: Callable[[Conversation, Bundle], T],
        files: Sequence[NamedBlob],
        *,
        deadline: Deadline,
        request: FoldRequested | None = None,
        environment: Environment | None = None,
    ) -> T | Failed:
        """Return what comes of talking about some files with a child of its own."""
        bundle = self._bundles.get(files)
        try:
            with self._child(deadline, request, environment) as box:
                try:
                    return talk(Conversation(box, limits=self._limits, deadline=deadline), bundle)
                except FoldFailure as failure:
                    box.drain_log()
                    scrub = Scrubber(box.folder, environment=environment)
                    return failed(failure, log=scrub(box.capture.text()), scrub=scrub)
        finally:
            wire.close([bundle.descriptor])

    @contextmanager
    def _child(
        self, deadline: Deadline, request: FoldRequested | None, environment: Environment | None
    ) -> Iterator[Box]:
        with deadline.paused():
            box = self._nursery.take(environment)
        try:
            if request is not None:
                self._register(box, request)
            self._nursery.replenish(environment)
            yield box
        finally:
            with self._lock:
                self._running.pop(box, None)
            box.close()

    def _register(self, box: Box, request: FoldRequested) -> None:
        """Let `cancel` find a child, and raise FoldFailure if its fold became unwanted before it could."""
        with self._lock:
            self._running[box] = request
        if self._is_unwanted(request):
            raise messages.cancelled(Stage.TRAIN)
