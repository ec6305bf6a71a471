"""Which of a dataset's files are what: the table of a standard one, the Python module of one with its own code."""

from __future__ import annotations

from collections.abc import Sequence

from datarun.events import Dataset, NamedBlob, Split
from services.runner.execution import messages

SPECIFIC = "specific.py"
SPECIFIC_SUFFIX = "_datarun.py"
TAG = "ERROR(split data)"


def split_of(dataset: Dataset) -> Split:
    """Return the split of a dataset; raises FoldFailure that says why there is none."""
    if dataset.split is not None:
        return dataset.split
    if dataset.split_error is None:
        raise messages.split_refusal(repr(LookupError(f"dataset {dataset.name!r} was never split")))
    raise messages.split_refusal(dataset.split_error.partition(TAG)[0])


def table_of(dataset: Dataset) -> NamedBlob:
    """Return the one table of a standard dataset."""
    for file in dataset.files:
        if not file.name.endswith(".py"):
            return file
    raise messages.split_refusal(repr(LookupError(f"dataset {dataset.name!r} has no data file")))


def code_of(dataset: Dataset) -> list[NamedBlob]:
    """Return the Python files of a dataset."""
    return [file for file in dataset.files if file.name.endswith(".py")]


def module_of(dataset: Dataset) -> str:
    """Return the name of the module with the dataset's own five functions."""
    names = [file.name for file in code_of(dataset)]
    for name in names:
        if name == SPECIFIC or name.endswith(SPECIFIC_SUFFIX):
            return name.removesuffix(".py")
    raise messages.split_refusal(repr(LookupError(f"dataset {dataset.name!r} has no {SPECIFIC}")))


def files_of(dataset: Dataset, split: Split) -> Sequence[NamedBlob]:
    """Return all files of a prepared dataset; a prepared one takes the place of an uploaded one of its name."""
    files = {file.name: file for file in (*dataset.files, *split.prepared)}
    return list(files.values())
