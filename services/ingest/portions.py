"""Folds in portions small enough to hold: what is read, encoded and sent at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datarun.readmodel.queries import KnownFold
from services.ingest.arrays import blob_size
from services.ingest.files import MIB

PORTION_BYTES = 4 * MIB
PORTION_FOLDS = 500


def portions(folds: Sequence[KnownFold]) -> Iterator[list[KnownFold]]:
    """Yield the folds in order, some megabytes of predictions at a time."""
    portion: list[KnownFold] = []
    size = 0
    for fold in folds:
        portion.append(fold)
        size += blob_size(fold.full_train_predictions) + blob_size(fold.test_predictions)
        if size >= PORTION_BYTES or len(portion) >= PORTION_FOLDS:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
