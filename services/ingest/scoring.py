"""Scores on request: one thread that reads blobs, and what it found, remembered by content.

A thread cannot be stopped, so work that takes longer than a client waits goes on, and the next request finds it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from datarun.blobs import StreamedBlobs
from datarun.errors import BlobsUnavailable
from datarun.events import Blob, Split
from datarun.readmodel.catalogue import ListedDataset
from datarun.readmodel.scored import ScoredFold
from datarun.scoring.folds import Part, Scored, Scorer, TestedFold
from datarun.scoring.metrics import Metric
from datarun.scoring.predictions import Stored
from datarun.scoring.truth import Subject, Truths
from services.ingest.refusals import detail

ANSWER_SECONDS = 10.0
MOST_WAITING = 32
"""Different questions at once; another one is refused for a while."""
NO_BLOB = Blob(sha256="0" * 64, size=0)
"""What a result that names no predictions is taken to name: no blob has this name."""

T = TypeVar("T")


class Scoring:
    """Scores folds for clients, one question after the other; equal questions at once are one."""

    def __init__(self, blobs: StreamedBlobs) -> None:
        self._scorer = Scorer(blobs, Truths(blobs))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._asked: dict[Hashable, asyncio.Future[Any]] = {}

    async def of(self, folds: Sequence[TestedFold], metrics: Sequence[Metric], parts: Sequence[Part]) -> list[Scored]:
        """Return the scores of a submission's folds in their order; raises Refusal when that takes longer."""
        [scored] = await self.of_each([folds], metrics, parts)
        return scored

    async def of_each(
        self, groups: Sequence[Sequence[TestedFold]], metrics: Sequence[Metric], parts: Sequence[Part]
    ) -> list[list[Scored]]:
        """Return the scores of several submissions' folds; raises the same."""
        digests = tuple(tuple(fold.digest for fold in folds) for folds in groups)
        key = (digests, tuple(metric.name for metric in metrics), tuple(parts))
        return await self._once(key, lambda: [self._scorer.score(folds, metrics, parts) for folds in groups])

    async def _once(self, key: Hashable, work: Callable[[], T]) -> T:
        future = self._asked.get(key)
        if future is None:
            if len(self._asked) >= MOST_WAITING:
                raise detail(503, "Too many other scores are being computed.", Retry_After="10")
            future = self._asked[key] = asyncio.get_running_loop().run_in_executor(self._thread, work)
            future.add_done_callback(lambda done: self._ended(key, done))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return cast(T, await asyncio.shield(future))
        except TimeoutError as error:
            raise detail(503, "The scores are being computed; ask again.", Retry_After="5") from error
        except BlobsUnavailable as error:
            raise detail(503, "The predictions cannot be read now.", Retry_After="5") from error

    def _ended(self, key: Hashable, done: asyncio.Future[Any]) -> None:
        del self._asked[key]
        if not done.cancelled():
            # Whoever asked may be gone.
            done.exception()

    def close(self) -> None:
        """Let go of the thread; what it does is given up when the process ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def to_score(fold: ScoredFold, subject: Subject) -> TestedFold:
    """Return a fold of the read model as it is scored."""
    return TestedFold(
        fold.fold_id,
        fold.attempt,
        subject,
        _blob(fold.train_is),
        _blob(fold.test_is),
        _stored(fold.full_train_predictions, fold.full_train_shape),
        _stored(fold.test_predictions, fold.test_shape),
    )


def subject_of(dataset: ListedDataset) -> Subject:
    """Return what a dataset's labels come from; a dataset with folds is never split in another way."""
    split = Split.model_validate(dataset.split) if dataset.split else None
    return Subject(dataset.target_column, dataset.workflow_elements, split)


def _stored(name: str | None, shape: list[int] | None) -> Stored:
    return Stored(_blob(name), tuple(shape or ()))


def _blob(name: str | None) -> Blob:
    if name is None:
        return NO_BLOB
    sha256, _, size = name.partition(":")
    return Blob(sha256=sha256, size=int(size))
