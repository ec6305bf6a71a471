"""Hands running folds to other runners: first the next delivery's request, then FoldHandedBack once the log has it.

After a crash between the two, the next delivery runs and the lease of this one lapses: the reaper then finds it
requested already and only tells the loss. Never the other way round: a fold that nobody would run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import structlog

from datarun.crashes import crash_point
from datarun.errors import LogUnavailable
from datarun.events import FoldHandedBack, FoldRequested
from datarun.lifecycle import next_delivery
from datarun.log import Position
from services.runner.publisher import Publisher
from services.runner.runs import FoldRun, SplitRun

log = structlog.get_logger(__name__)


def hand_back(runs: Iterable[FoldRun], *, publisher: Publisher, runner_id: str, seconds: float) -> None:
    """Hand over what can be within the given time; the rest is the reaper's, as if this runner had been killed."""
    deadline = time.monotonic() + seconds
    asked = [
        (run, publisher.append(request, cause=run.record))
        for run in runs
        if (request := next_request(run.request)) is not None
    ]
    told = []
    for run, appended in asked:
        if not _is_logged(appended, deadline):
            log.warning("fold.not_handed_back", **run.named.model_dump())
            continue
        crash_point("runner.after_requested_again")
        told.append(publisher.append(_handed_back(run, runner_id), cause=run.record))
        log.info("fold.handed_back", **run.named.model_dump())
    _await(told, deadline)


def ask_again(splits: Iterable[SplitRun], *, publisher: Publisher, seconds: float) -> None:
    """Request splits anew whose records were accepted while they ran; the first result of an attempt wins."""
    _await([publisher.append(run.request, cause=run.work.record) for run in splits], time.monotonic() + seconds)


def next_request(request: FoldRequested) -> FoldRequested | None:
    """Return the request of the delivery after one that was handed back, None when there have been too many."""
    handed_back = request.handed_back + 1
    delivery = next_delivery(request.delivery, handed_back=handed_back)
    if delivery is None:
        return None
    return request.model_copy(update={"delivery": delivery, "handed_back": handed_back})


def _handed_back(run: FoldRun, runner_id: str) -> FoldHandedBack:
    request = run.request
    return FoldHandedBack(
        fold_id=request.fold_id,
        attempt=request.attempt,
        delivery=request.delivery,
        submission_id=request.submission_id,
        raw_data_id=request.dataset.raw_data_id,
        runner_id=runner_id,
    )


def _is_logged(appended: Future[Position], deadline: float) -> bool:
    try:
        appended.result(max(0.0, deadline - time.monotonic()))
    except (LogUnavailable, FutureTimeoutError):
        return False
    return True


def _await(appended: Sequence[Future[Position]], deadline: float) -> None:
    for future in appended:
        if not _is_logged(future, deadline):
            log.warning("runner.log_unavailable", error="what was handed over was not told in time")
