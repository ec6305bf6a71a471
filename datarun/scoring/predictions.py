"""Predictions and row numbers as they come from blobs: nothing in them is believed before it is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datarun.blobs import BlobStore
from datarun.events import Blob
from datarun.scoring.metrics import Array, Kind
from datarun.scoring.truth import Truth, Unscorable

LARGEST_BYTES = 4 << 30
MOST_REPEATS = 100
MOST_DIMENSIONS = 8
_ITEM_BYTES = 8


@dataclass(frozen=True, slots=True)
class Stored:
    """An array in the blob store: float64 in C order."""

    blob: Blob
    shape: tuple[int, ...]


def load(blobs: BlobStore, stored: Stored, *, rows: int, largest_bytes: int) -> Array:
    """Return predictions of so many rows.

    Raises Unscorable for what is not an array of them, and BlobMissing, BlobCorrupt, BlobsUnavailable.
    """
    shape, size = stored.shape, stored.blob.size
    is_shape = shape and min(shape) >= 0 and len(shape) <= MOST_DIMENSIONS
    if not is_shape or size != math.prod(shape) * _ITEM_BYTES:
        raise Unscorable("the predictions do not have the shape that was announced")
    if shape[0] != rows:
        raise Unscorable(f"there are {shape[0]} predictions for {rows} rows")
    return np.frombuffer(_content(blobs, stored.blob, largest_bytes), dtype="<f8").reshape(shape)


def load_rows(blobs: BlobStore, blob: Blob, *, rows: int) -> Array:
    """Return row numbers; raises the same."""
    # A fold names no row so often that this is more.
    content = _content(blobs, blob, MOST_REPEATS * rows * _ITEM_BYTES)
    if len(content) % _ITEM_BYTES:
        raise Unscorable("the indices are not whole numbers of 64 bits")
    found = np.frombuffer(content, dtype="<i8")
    if not len(found):
        raise Unscorable("the fold has no such rows")
    if found.min() < 0 or found.max() >= rows:
        raise Unscorable(f"an index is out of range 0..{rows - 1}")
    return found


def aligned(predictions: Array, truth: Truth, seen: Array, *, largest_bytes: int) -> Array:
    """Return a value a row, or a column for every class of the dataset; raises Unscorable.

    `seen` are the classes of the rows the submission was trained on: one that saw fewer has fewer columns, and the
    others are as improbable as can be.
    """
    if truth.kind is Kind.REGRESSION:
        if predictions.ndim > 1 and math.prod(predictions.shape[1:]) != 1:
            raise Unscorable(f"predictions of shape {predictions.shape} are not one value a row")
        return predictions.reshape(-1)
    classes = len(truth.classes)
    if predictions.ndim != 2:  # noqa: PLR2004 - rows and classes
        raise Unscorable(f"predictions of shape {predictions.shape} are not one probability a row and class")
    columns = predictions.shape[1]
    if columns == classes:
        return predictions
    if columns != len(seen):
        raise Unscorable(f"there are {columns} columns for {len(seen)} classes of {classes}")
    _check_size(len(predictions) * classes * _ITEM_BYTES, largest_bytes)
    whole = np.zeros((len(predictions), classes))
    whole[:, seen] = predictions
    return whole


def _content(blobs: BlobStore, blob: Blob, largest_bytes: int) -> bytes:
    _check_size(blob.size, largest_bytes)
    content = blobs.get(blob)
    if len(content) != blob.size:
        raise Unscorable(f"a blob has {len(content)} bytes, where {blob.size} were announced")
    return content


def _check_size(size: int, largest_bytes: int) -> None:
    if size > largest_bytes:
        raise Unscorable(f"{size:,} bytes are more than is scored")
