"""What can be found wrong before anything is uploaded: the gateway refuses the same."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from datarun.errors import DatarunError
from datarun.events import Dataset
from datarun.file_names import check_file_names
from datarun.producer.messages import Fold, Upload, packed

MAX_INDICES = 10_000_000
_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.\-]{0,39}")


class Invalid(DatarunError):
    """What is to be sent would be refused, or could not run."""


def check_upload(upload: Upload) -> None:
    """Raise Invalid for a dataset that the gateway would refuse for its names."""
    if not _DATASET_NAME.fullmatch(upload.name):
        raise Invalid(f"name: {upload.name!r} is not 1 to 40 letters, digits, spaces, '_', '-' and '.'")
    if not elements_of(upload.workflow_elements):
        raise Invalid("workflow_elements: names what a submission consists of, such as classifier")
    _check_files(upload.files)


def check_fold(dataset: Dataset, fold: Fold) -> None:
    """Raise Invalid for a fold that could not run: no split, a file missing, rows that are not there."""
    if dataset.split is None:
        raise Invalid(f"dataset {dataset.raw_data_id} has no split yet: wait_for_split returns the one that has")
    _check_files(fold.files)
    missing = [f"{name}.py" for name in elements_of(dataset.workflow_elements) if f"{name}.py" not in fold.files]
    if missing:
        raise Invalid(f"files: missing {', '.join(missing)}")
    _check_indices("train_is", fold.train_is, rows=dataset.split.train_rows, may_be_empty=False)
    _check_indices("test_is", fold.test_is, rows=dataset.split.train_rows, may_be_empty=True)


def elements_of(text: str) -> list[str]:
    """Return the elements that a text names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _check_files(names: Iterable[str]) -> None:
    problem = check_file_names(names)
    if problem:
        raise Invalid(f"files: {problem}")


def _check_indices(name: str, indices: object, *, rows: int | None, may_be_empty: bool) -> None:
    try:
        array = packed(indices)  # type: ignore[arg-type]
    except ValueError as error:
        raise Invalid(f"{name}: {error}") from error
    if not 0 < len(array) <= MAX_INDICES and not (may_be_empty and len(array) == 0):
        raise Invalid(f"{name}: {len(array)} indices; there are 1 to {MAX_INDICES}")
    if len(np.unique(array)) != len(array):
        raise Invalid(f"{name}: a row appears twice")
    if rows is not None and len(array) and not (array.min() >= 0 and array.max() < rows):
        raise Invalid(f"{name}: rows are 0 to {rows - 1}")
