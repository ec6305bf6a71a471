"""What is true: the labels of a dataset's train and test part, read from the target column of their files alone."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from datarun.blobs import StreamedBlobs
from datarun.errors import BlobCorrupt, DatarunError
from datarun.events import Blob, Split
from datarun.scoring.metrics import Array, Kind

CACHED_BYTES = 64 << 20


class Unscorable(DatarunError):
    """There is no score, and this is why; it will not change."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the labels of a dataset come from, and what its submissions predict."""

    target: str
    workflow_elements: str
    split: Split | None

    @property
    def kind(self) -> Kind:
        """What predictions of its submissions are; raises Unscorable."""
        elements = {name.strip() for name in self.workflow_elements.split(",")}
        # With both it is the regressor that predicts.
        if "regressor" in elements:
            return Kind.REGRESSION
        if "classifier" in elements:
            return Kind.CLASSIFICATION
        raise Unscorable("the workflow of the dataset has neither a classifier nor a regressor")

    def part(self, name: str) -> Blob:
        """Return the file of the `train` or the `test` part; raises Unscorable."""
        if self.split is None:
            raise Unscorable("the dataset is not split")
        if self.split.kind == "custom":
            raise Unscorable("the labels of the dataset are known to its specific.py alone")
        part = self.split.train if name == "train" else self.split.test
        if part is None:
            raise Unscorable(f"the split of the dataset has no {name} part")
        return part


@dataclass(frozen=True, slots=True)
class Truth:
    """The labels of a part: of a regression as they are, of a classification as numbers of the train part's classes.

    A label that the train part does not have is -1.
    """

    kind: Kind
    labels: Array
    classes: Array

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return int(self.labels.nbytes + self.classes.nbytes + 64 * len(self.classes))


class Truths:
    """The labels of datasets, those used last remembered."""

    def __init__(self, blobs: StreamedBlobs) -> None:
        self._blobs = blobs
        self._kept: OrderedDict[tuple[str, ...], Truth] = OrderedDict()

    def train(self, subject: Subject) -> Truth:
        """Return the labels of the train part; raises Unscorable, BlobMissing, BlobCorrupt, BlobsUnavailable."""
        kind, part = subject.kind, subject.part("train")
        return self._once((kind, subject.target, part.sha256), lambda: self._read_train(kind, part, subject.target))

    def test(self, subject: Subject) -> Truth:
        """Return the labels of the test part; raises the same."""
        train, part = self.train(subject), subject.part("test")
        key = (train.kind, subject.target, subject.part("train").sha256, part.sha256)
        return self._once(key, lambda: self._read_test(train, part, subject.target))

    def _once(self, key: tuple[str, ...], read: Callable[[], Truth]) -> Truth:
        if key not in self._kept:
            self._kept[key] = read()
            while len(self._kept) > 1 and sum(truth.size_bytes for truth in self._kept.values()) > CACHED_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read_train(self, kind: Kind, part: Blob, target: str) -> Truth:
        column = self._column(part, target)
        if kind is Kind.REGRESSION:
            return Truth(kind, _numbers(column), np.empty(0))
        try:
            classes, labels = np.unique(_whole(column).to_numpy(), return_inverse=True)
        except TypeError as error:
            raise Unscorable("the labels of the dataset are texts and numbers, and have no order") from error
        return Truth(kind, labels.astype(np.int32), classes)

    def _read_test(self, train: Truth, part: Blob, target: str) -> Truth:
        if train.kind is Kind.REGRESSION:
            return Truth(train.kind, _numbers(self._column(part, target)), train.classes)
        import pandas as pd  # noqa: PLC0415

        # Each part is read for itself: digits alone are numbers in one and may have been texts in the other.
        is_text = train.classes.dtype.kind not in "biuf"
        column = _whole(self._column(part, target, dtype=str if is_text else None))
        if not is_text and not pd.api.types.is_numeric_dtype(column):
            column = pd.to_numeric(column, errors="coerce")
        labels = pd.Index(train.classes).get_indexer(column.to_numpy())
        return Truth(train.kind, np.asarray(labels, dtype=np.int32), train.classes)

    def _column(self, part: Blob, target: str, dtype: Any = None) -> Any:
        import pandas as pd  # noqa: PLC0415

        source = _Verifying(self._blobs.read(part.sha256, 0, part.size))
        frame = None
        with suppress(ValueError, OverflowError):
            # Of a large file the one column alone is ever in memory.
            frame = pd.read_csv(io.BufferedReader(source), usecols=[target], dtype=dtype)
        if source.finish() != part.sha256:
            raise BlobCorrupt(f"blob {part.sha256} has other bytes in the store")
        if frame is None:
            raise Unscorable("the labels of the dataset cannot be read")
        return frame[target]


class _Verifying(io.RawIOBase):
    """Bytes that come in pieces, as a file; hashed on their way."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of the buffer; 0 at the end."""
        if not self._rest:
            piece = next(self._pieces, b"")
            self._hash.update(piece)
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def finish(self) -> str:
        """Read what is left and return the sha256 of all."""
        for piece in self._pieces:
            self._hash.update(piece)
        return self._hash.hexdigest()


def _whole(column: Any) -> Any:
    missing = int(column.isna().sum())
    if missing:
        raise Unscorable(f"{missing} rows of the dataset have no label")
    return column


def _numbers(column: Any) -> Array:
    if _whole(column).dtype.kind not in "iuf":
        raise Unscorable("the target column is not one of numbers")
    return np.asarray(column, dtype=np.float64)
