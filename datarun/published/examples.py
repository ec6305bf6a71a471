"""One example of every event: a small story about the dataset iris, its fold 11, and what may go wrong with it."""

from __future__ import annotations

import hashlib
from typing import Any

from datarun.events import (
    Blob,
    Cause,
    Dataset,
    DataSplit,
    DataUploaded,
    Event,
    Fault,
    FoldCancelled,
    FoldFailed,
    FoldFenced,
    FoldHandedBack,
    FoldLost,
    FoldReproduced,
    FoldRequested,
    FoldStarted,
    FoldTested,
    FoldTrained,
    Metrics,
    NamedBlob,
    PackageFailed,
    PackageInstalled,
    PackageRequested,
    PredictionsFetched,
    Priority,
    Provenance,
    RunnerHeartbeat,
    RunningFold,
    Sandbox,
    Split,
    SplitFailed,
    SplitRequested,
    Stage,
    StandardSplit,
)

FLOAT64 = "application/vnd.datarun.float64"
SPLIT_TASK, FOLD_TASK = "0b5c7a3e-6a2f-4c53-9a39-0c6a3f0b8f11", "6d1f9c52-6c0e-4b0a-8f0e-5f3f0d1c2b77"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _blob(text: str, size: int, media_type: str = "application/octet-stream") -> Blob:
    return Blob(sha256=_sha256(text), size=size, media_type=media_type)


_CSV = NamedBlob(name="iris.csv", blob=_blob("iris.csv", 3858, "text/csv"))
_UNSPLIT = Dataset(raw_data_id=1, name="iris", target_column="species", workflow_elements="classifier", files=(_CSV,))
_SPLIT = Split(
    kind="standard",
    task_id=SPLIT_TASK,
    held_out_test=0.3,
    random_state=42,
    train=_blob("train", 2701, "text/csv"),
    test=_blob("test", 1190, "text/csv"),
    train_rows=105,
    test_rows=45,
)
_SANDBOX = Sandbox(level=3, mechanisms=("rlimits", "landlock", "seccomp", "root", "namespaces"))
_METRICS = Metrics(
    train_time=0.041,
    train_cpu_time=0.038,
    train_memory=123.5,
    validation_time=0.003,
    test_time=0.004,
    test_cpu_time=0.004,
    test_memory=123.5,
)
_PROVENANCE = Provenance(
    environment=_sha256("environment"),
    harness=_sha256("harness"),
    threads=1,
    cpu="AMD EPYC 7763",
    cpu_flags=_sha256("flags"),
    blas=("openblas 0.3.30 Haswell pthreads numpy.libs/libscipy_openblas64_.so",),
    data=_sha256("data"),
    code=_sha256("code"),
    train_is=_sha256("train_is"),
    test_is=_sha256("test_is"),
    sandbox_level=3,
)
_FULL_TRAIN = _blob("full train predictions", 2520, FLOAT64)
_FOLD: dict[str, Any] = {"fold_id": 11, "attempt": 1}
_RUN: dict[str, Any] = _FOLD | {"delivery": 1, "submission_id": 7, "raw_data_id": 1, "runner_id": "gpu-01-4711"}
_PACKAGE: dict[str, Any] = {
    "environment": "1",
    "request_id": "2f1c6c1e-7a52-4d0b-9c33-9a3f6b0f2d10",
    "requirement": "lightgbm>=4",
}

_EXAMPLES: tuple[Event, ...] = (
    DataUploaded(
        raw_data_id=1,
        name="iris",
        target_column="species",
        workflow_elements="classifier",
        files=(_CSV,),
        uploaded_by="ada",
    ),
    SplitRequested(
        raw_data_id=1,
        attempt=1,
        task_id=SPLIT_TASK,
        plan=StandardSplit(held_out_test=0.3, random_state=42),
        dataset=_UNSPLIT,
        requested_by="ada",
    ),
    DataSplit(raw_data_id=1, attempt=1, task_id=SPLIT_TASK, split=_SPLIT, runner_id="gpu-01-4711"),
    SplitFailed(
        raw_data_id=1,
        attempt=1,
        task_id=SPLIT_TASK,
        cause=Cause.USER_ERROR,
        fault=Fault.USER,
        log="KeyError('species')ERROR(split data) \n",
        runner_id="gpu-01-4711",
    ),
    FoldRequested(
        **_FOLD,
        submission_id=7,
        priority=Priority.HIGH,
        dataset=_UNSPLIT.model_copy(update={"split": _SPLIT}),
        files=(NamedBlob(name="classifier.py", blob=_blob("classifier.py", 412)),),
        train_is=_blob("train_is", 640),
        test_is=_blob("test_is", 200),
        task_id=FOLD_TASK,
        requested_by="ada",
    ),
    FoldStarted(**_RUN, lease_seconds=10.0),
    FoldTrained(
        **_RUN,
        metrics=_METRICS,
        full_train_predictions=_FULL_TRAIN,
        predictions_shape=(105, 3),
        sandbox=_SANDBOX,
    ),
    FoldTested(
        **_RUN,
        metrics=_METRICS,
        full_train_predictions=_FULL_TRAIN,
        full_train_shape=(105, 3),
        test_predictions=_blob("test predictions", 1080, FLOAT64),
        test_shape=(45, 3),
        log="\n\n",
        sandbox=_SANDBOX,
        provenance=_PROVENANCE,
    ),
    FoldFailed(
        **_RUN,
        stage=Stage.TEST,
        cause=Cause.OUTPUT_SHAPE,
        fault=Fault.USER,
        message="\n\nWrong test prediction size: \n3 instead of 45 \n - ERROR(test)\n",
        metrics=_METRICS,
        full_train_predictions=_FULL_TRAIN,
        full_train_shape=(105, 3),
        sandbox=_SANDBOX,
    ),
    FoldLost(**_RUN),
    FoldHandedBack(**_RUN),
    FoldReproduced(
        **(_RUN | {"runner_id": "verifier-12"}),
        tested_by="gpu-01-4711",
        reproduced=True,
        provenance=_PROVENANCE,
        sandbox=_SANDBOX,
    ),
    FoldCancelled(**_FOLD, submission_id=7, raw_data_id=1, cancelled_by="ada", reason="sent by mistake"),
    FoldFenced(**_FOLD, cause="cancelled"),
    PredictionsFetched(**_FOLD, fetch_id="9c1b0d4e-0b0e-4b7e-8f64-7d6b6f6a5e21", fetched_by="databoard"),
    RunnerHeartbeat(
        runner_id="gpu-01-4711",
        sequence=128,
        host="gpu-01",
        pid=4711,
        queues=("H", "data", "L"),
        slots=4,
        running=(RunningFold(fold_id=11, attempt=1, delivery=1),),
        versions={"python": "3.11.2", "scikit-learn": "1.9.0"},
        sandbox=_SANDBOX,
    ),
    PackageRequested(**_PACKAGE, requested_by="ada"),
    PackageInstalled(
        **_PACKAGE,
        runner_id="gpu-01-4711",
        seconds=8.4,
        environment_key=_sha256("environment 1"),
        packages=("lightgbm==4.6.0",),
    ),
    PackageFailed(**_PACKAGE, runner_id="gpu-01-4711", seconds=1.2, reason="no wheel fits this Python"),
)

EXAMPLES: dict[type[Event], Event] = {type(event): event for event in _EXAMPLES}
"""The example of each type."""
