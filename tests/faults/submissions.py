"""A dataset and a submission that only waits, as blobs and requests: no gateway takes part."""

from __future__ import annotations

import numpy as np

from datarun.blobs import BlobStore
from datarun.events import Dataset, FoldRequested, NamedBlob, Priority, Split, SplitRequested, StandardSplit

ROWS = 40
WAITS = """
import time
import numpy as np

class Classifier:
    def fit(self, X, y):
        time.sleep({seconds})
        self.classes = len(np.unique(y))

    def predict_proba(self, X):
        # No two runs predict the same, so that a result shows whose it is.
        return np.random.default_rng().dirichlet(np.ones(self.classes), len(X))
"""


def table(rows: int) -> bytes:
    """Return a CSV of two features and two classes."""
    return ("a,b,target\n" + "".join(f"{row},{row % 7},{row % 2}\n" for row in range(rows))).encode()


def dataset(blobs: BlobStore) -> Dataset:
    """Store a dataset that is split already."""
    half = blobs.put(table(ROWS))
    return Dataset(
        raw_data_id=1,
        name="waiting",
        target_column="target",
        workflow_elements="classifier",
        files=(NamedBlob(name="waiting.csv", blob=blobs.put(table(2 * ROWS))),),
        split=Split(kind="standard", task_id="t", train=half, test=half, train_rows=ROWS, test_rows=ROWS),
    )


def fold(blobs: BlobStore, data: Dataset, fold_id: int, seconds: float, priority: Priority) -> FoldRequested:
    """Store a submission that trains for some seconds and return a request to run it."""
    code = blobs.put(WAITS.format(seconds=seconds).encode())
    return FoldRequested(
        fold_id=fold_id,
        attempt=1,
        submission_id=fold_id,
        priority=priority,
        dataset=data,
        files=(NamedBlob(name="classifier.py", blob=code),),
        train_is=blobs.put(np.arange(ROWS // 2, dtype="<i8").tobytes()),
        test_is=blobs.put(np.arange(ROWS // 2, ROWS, dtype="<i8").tobytes()),
        task_id=f"fold {fold_id}",
        requested_by="somebody",
    )


def split(data: Dataset, raw_data_id: int) -> SplitRequested:
    """Return a request to split the same table as another dataset."""
    return SplitRequested(
        raw_data_id=raw_data_id,
        attempt=1,
        task_id=f"split {raw_data_id}",
        plan=StandardSplit(held_out_test=0.5, random_state=42),
        dataset=data.model_copy(update={"raw_data_id": raw_data_id, "split": None}),
        requested_by="somebody",
    )
