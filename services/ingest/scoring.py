"""Scores on request: one thread that reads blobs, and what it found, remembered by content.

A question that takes longer than its client waits is answered when it is asked again: what was found by then stays.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

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

ANSWER_SECONDS = 20.0
MOST_WAITING = 32
"""Different questions at once; another one is refused for a while."""
LARGEST_BYTES = 128 << 20
"""Of the predictions of a fold on one part; `datarun rescore` takes more."""
LIBRARY = "sklearn.metrics"
"""What is loaded with the first score."""
NO_BLOB = Blob(sha256="0" * 64, size=0)
"""What a result that names no predictions is taken to name: no blob has this name."""


class Scoring:
    """Scores folds for clients, one submission after the other; equal questions at once are one."""

    def __init__(self, blobs: StreamedBlobs, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._answer_seconds = answer_seconds
        self._scorer = Scorer(blobs, Truths(blobs), largest_bytes=LARGEST_BYTES)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._loaded = False
        self._asked: dict[Hashable, asyncio.Future[list[Scored]]] = {}

    async def of(
        self,
        submissions: Sequence[Sequence[TestedFold]],
        metrics: Sequence[Metric],
        parts: Sequence[Part],
        *,
        curve: bool = True,
    ) -> list[list[Scored]]:
        """Return the scores of the folds of some submissions, bagged in their order; raises Refusal if that takes long.

        Between two submissions others have their turn, and what is found is found for the next who asks.
        """
        names = tuple(metric.name for metric in metrics)
        found = []
        try:
            async with asyncio.timeout(self._answer_seconds):
                for folds in submissions:
                    # What an attempt predicted never changes.
                    which = tuple((fold.fold_id, fold.attempt) for fold in folds)
                    key = (which, names, tuple(parts), curve)
                    work = partial(self._score, folds, metrics, parts, curve=curve)
                    found.append(await self._once(key, work))
        except TimeoutError as error:
            raise detail(503, "The scores are being computed; ask again.", Retry_After="5") from error
        except BlobsUnavailable as error:
            raise detail(503, "The predictions cannot be read now.", Retry_After="5") from error
        return found

    async def _once(self, key: Hashable, work: Callable[[], list[Scored]]) -> list[Scored]:
        future = self._asked.get(key)
        if future is None:
            if len(self._asked) >= MOST_WAITING:
                raise detail(503, "Too many other scores are being computed.", Retry_After="10")
            future = self._asked[key] = asyncio.get_running_loop().run_in_executor(self._thread, work)
            future.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(future)

    def _score(
        self, folds: Sequence[TestedFold], metrics: Sequence[Metric], parts: Sequence[Part], *, curve: bool
    ) -> list[Scored]:
        try:
            return self._scorer.score(folds, metrics, parts, curve=curve)
        finally:
            if not self._loaded and LIBRARY in sys.modules:
                # As when the service starts: looking through it for cycles would keep every client waiting.
                gc.freeze()
                self._loaded = True

    def _ended(self, key: Hashable, done: asyncio.Future[list[Scored]]) -> None:
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
