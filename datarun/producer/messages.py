"""What a producer is told: contents, not yet references to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from datarun.events import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A dataset; `workflow_elements` names what a submission consists of, separated by commas."""

    raw_data_id: int
    name: str
    target_column: str
    workflow_elements: str
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A submission and the rows of the train part that it is fitted on; an attempt is one run of it."""

    fold_id: int
    submission_id: int
    files: Mapping[str, bytes] = field(repr=False)
    train_is: npt.ArrayLike = field(repr=False)
    test_is: npt.ArrayLike = field(default=(), repr=False)
    priority: Priority = Priority.LOW
    attempt: int = 1
    submission_version: int = 1


def packed(indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return indices as they are stored; raises ValueError for what are no whole numbers."""
    array = np.asarray(indices)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"indices are whole numbers, not {array.dtype}")
    return array.astype("<i8").ravel()
