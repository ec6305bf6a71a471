"""Jobs whose answer is data: an organiser's code that cuts a fold or prepares files, and the standard split."""

from __future__ import annotations

import os
import stat

from datarun.blobs import BlobStore
from datarun.errors import FoldFailure
from datarun.events import Cause, Fault, NamedBlob, Split, Stage, StandardSplit
from services.runner.execution import messages
from services.runner.execution.bundles import FILE_NAME, Bundle
from services.runner.execution.conversation import Conversation
from services.runner.execution.data import FoldData, fold_data
from services.runner.execution.isolated import wire
from services.runner.execution.isolated.wire import Garbled

MIB = 1 << 20
CSV = "text/csv"
MAX_FILES = 1000
PARCELS, PARTS = 3, 2


def cut(child: Conversation, bundle: Bundle, module: str, indices: int) -> FoldData:
    """Have a dataset's own code cut a fold's data."""
    child.send({"job": "slice", "module": module, "files": bundle.files}, [bundle.descriptor, indices])
    answer, descriptors = child.answer(Stage.SPLIT, "sliced", descriptors=PARCELS)
    try:
        for descriptor in descriptors:
            wire.sealed_size(descriptor)
        return fold_data(answer, descriptors)
    except Garbled as error:
        wire.close(descriptors)
        raise messages.protocol_error(Stage.SPLIT, str(error)) from error


def prepare(
    child: Conversation, bundle: Bundle, module: str, *, blobs: BlobStore, limit_mib: int
) -> tuple[NamedBlob, ...]:
    """Have a dataset's own code prepare its files, and store each as it arrives."""
    child.send({"job": "prepare", "module": module, "files": bundle.files}, [bundle.descriptor])
    prepared: dict[str, NamedBlob] = {}
    left = limit_mib * MIB
    while (file := _next_file(child)) is not None:
        name, descriptor = file
        try:
            content = _read(descriptor, left)
        finally:
            wire.close([descriptor])
        left -= len(content)
        prepared[name] = NamedBlob(name=name, blob=blobs.put(content))
        if len(prepared) > MAX_FILES:
            raise _refused(f"prepare_data left more than {MAX_FILES} files")
    return tuple(prepared.values())


def split(
    child: Conversation, bundle: Bundle, plan: StandardSplit, *, task_id: str, blobs: BlobStore, limit_mib: int
) -> Split:
    """Have a CSV file split into a train and a test part, and store both."""
    job = {
        "job": "split",
        "files": bundle.files,
        "held_out_test": plan.held_out_test,
        "random_state": plan.random_state,
    }
    child.send(job, [bundle.descriptor])
    answer, descriptors = child.answer(Stage.SPLIT, "split", descriptors=PARTS)
    try:
        train, test = (blobs.put(_read(descriptor, limit_mib * MIB), media_type=CSV) for descriptor in descriptors)
    finally:
        wire.close(descriptors)
    return Split(
        kind="standard",
        task_id=task_id,
        held_out_test=plan.held_out_test,
        random_state=plan.random_state,
        train=train,
        test=test,
        train_rows=answer["train_rows"],
        test_rows=answer["test_rows"],
    )


def _next_file(child: Conversation) -> tuple[str, int] | None:
    """Return the name and the descriptor of the next prepared file; None after the last one."""
    message, descriptors = child.answer(Stage.SPLIT, "file", "done", descriptors=None)
    if message["event"] == "done":
        wire.close(descriptors)
        return None
    name = message.get("name")
    if len(descriptors) != 1 or not isinstance(name, str):
        wire.close(descriptors)
        raise messages.protocol_error(Stage.SPLIT, "a file came without its name or its content")
    if not FILE_NAME.match(name):
        wire.close(descriptors)
        raise _refused(f"prepare_data left a file named {name!r}")
    return name, descriptors[0]


def _read(descriptor: int, limit_bytes: int) -> bytes:
    """Return a regular file's bytes, at most so many; raises FoldFailure for anything else."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise messages.protocol_error(Stage.SPLIT, "a descriptor is not a file")
    if status.st_size > limit_bytes:
        raise messages.failure(Stage.SPLIT, Cause.DISK, Fault.LIMIT, repr(OSError("the prepared files are too large")))
    try:
        return bytes(wire.read(descriptor, status.st_size))
    except Garbled as error:
        raise messages.protocol_error(Stage.SPLIT, str(error)) from error


def _refused(text: str) -> FoldFailure:
    return messages.failure(Stage.SPLIT, Cause.INVALID, Fault.USER, repr(ValueError(text)))
