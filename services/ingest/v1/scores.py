"""Scores of a fold and of a submission: computed from the stored predictions and the labels, which are never told.

A participant sees the scores of their own work, and those on the hidden labels only where the service is set so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from datarun.readmodel import catalogue, scored
from datarun.scoring.folds import Part, Scored, TestedFold, Wanted
from datarun.scoring.metrics import DEFAULT, METRICS, Metric
from datarun.scoring.score import Score, mean_and_std
from datarun.scoring.truth import Subject, Unscorable
from services.ingest.refusals import Refusal, detail, forbidden, not_found
from services.ingest.scoring import subject_of, to_score
from services.ingest.v1.datasets import dataset_numbered
from services.ingest.v1.folds import find
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.values import Asked, DatasetId, FoldId, SubmissionId, Told

MOST_FOLDS = 1000
"""Of one submission; `datarun rescore` scores any number."""
PartName = Literal["train", "valid", "test"]
_NAME = "[a-z0-9_]{1,40}"
MetricNames = Annotated[
    str,
    Field(
        pattern=f"^{_NAME}(,{_NAME}){{0,9}}$",
        description=f"Scoring functions, separated by commas: {', '.join(METRICS)}.",
    ),
]


class ScoresQuery(Asked):
    """Which scores; by default accuracy of a classifier, rmse of a regressor."""

    metric: MetricNames | None = None


class ScoredPart(Told):
    """One score, or why there is none."""

    part: Annotated[PartName, Field(description="`valid` are the rows that the fold left out, `test` the test part.")]
    metric: str
    lower_is_better: bool
    value: float | None
    reason: Annotated[str | None, Field(description="Why there is no value.")] = None


class FoldScores(Told):
    """The scores of a fold's newest attempt."""

    id: FoldId
    attempt: int
    submission_id: SubmissionId
    dataset_id: DatasetId
    scores: list[ScoredPart]


class OfFold(Told):
    """A fold's own score, and that of the mean prediction of the folds up to it."""

    fold_id: FoldId
    attempt: int
    value: float | None
    reason: str | None = None
    bagged: Annotated[float | None, Field(description="Of the mean prediction of the folds up to this one.")]
    bagged_folds: Annotated[int, Field(description="Of how many folds that mean is.")]
    bagged_reason: str | None = None


class SubmissionPart(Told):
    """What a submission's folds come to by one scoring function on one part."""

    part: PartName
    metric: str
    lower_is_better: bool
    mean: Annotated[float | None, Field(description="Over the folds that have a value.")]
    std: float | None
    bagged: Annotated[float | None, Field(description="Of the mean prediction of all folds.")]
    folds: Annotated[list[OfFold], Field(description="By the folds' numbers.")]


class SubmissionScores(Told):
    """The scores of the tested folds of a submission's newest version."""

    id: SubmissionId
    dataset_id: DatasetId
    version: int
    tested_folds: int
    scores: list[SubmissionPart]


class Function(Told):
    """A scoring function."""

    name: str
    kind: Annotated[str, Field(description="What predictions it is for: classification or regression.")]
    takes: Annotated[str, Field(description="values, probabilities, or labels: those of the highest probability.")]
    lower_is_better: bool


class Functions(Told):
    """The scoring functions that have a name here."""

    items: list[Function]


async def list_scoring_functions(call: Call[Nothing, None]) -> web.StreamResponse:  # noqa: ARG001 - an operation's form
    """Return every scoring function and what it is for."""
    told = [
        Function(name=one.name, kind=str(one.kind), takes=one.takes.value, lower_is_better=one.is_lower_the_better)
        for one in METRICS.values()
    ]
    return answer(Functions(items=told))


async def get_fold_scores(call: Call[ScoresQuery, None]) -> web.StreamResponse:
    """Score a fold that was tested."""
    fold = await find(call)
    if fold.state != "TESTED":
        raise detail(409, f"Fold {fold.fold_id} has no predictions to score: it is {fold.state}.")
    subject = subject_of(await dataset_numbered(call.gateway, fold.raw_data_id))
    metrics = metrics_of(call.query.metric, subject)
    asked = scored.ScoredFold(
        fold.fold_id,
        fold.attempt,
        fold.submission_id,
        fold.submission_version,
        fold.raw_data_id,
        fold.owner,
        fold.train_is,
        fold.test_is,
        fold.full_train_predictions,
        fold.full_train_shape,
        fold.test_predictions,
        fold.test_shape,
    )
    [[found]] = await call.gateway.scoring.of([[to_score(asked, subject)]], metrics, visible_parts(call))
    told = [
        ScoredPart(
            part=part.value,
            metric=metric.name,
            lower_is_better=metric.is_lower_the_better,
            **_told(found.own[part, metric.name]),
        )
        for metric in metrics
        for part in visible_parts(call)
    ]
    return answer(
        FoldScores(
            id=fold.fold_id,
            attempt=fold.attempt,
            submission_id=fold.submission_id,
            dataset_id=fold.raw_data_id,
            scores=told,
        )
    )


async def get_submission_scores(call: Call[ScoresQuery, None]) -> web.StreamResponse:
    """Score a submission's folds, each by itself and bagged."""
    gateway, number = call.gateway, call.path["submission_id"]
    listed = await gateway.database.run(
        lambda cursor: catalogue.list_submissions(cursor, after=number - 1, limit=1, only_of=call.only_of)
    )
    if not listed or listed[0].submission_id != number:
        raise not_found()
    submission = listed[0]
    found = await gateway.database.run(lambda cursor: scored.folds_of_submission(cursor, number, limit=MOST_FOLDS + 1))
    if len(found) > MOST_FOLDS:
        raise detail(409, f"Submission {number} has more than {MOST_FOLDS} tested folds: see `datarun rescore`.")
    subject = subject_of(await dataset_numbered(gateway, submission.raw_data_id))
    metrics, parts = metrics_of(call.query.metric, subject), visible_parts(call)
    [done] = await gateway.scoring.of([members(found, subject)], metrics, parts)
    told = await gateway.compute(lambda: [_of_submission(done, metric, part) for metric in metrics for part in parts])
    return answer(
        SubmissionScores(
            id=number,
            dataset_id=submission.raw_data_id,
            version=submission.version,
            tested_folds=len(done),
            scores=told,
        )
    )


def members(found: Sequence[scored.ScoredFold], subject: Subject) -> list[TestedFold]:
    """Return a submission's folds as they are scored, in the order in which they are bagged: by number."""
    return [to_score(fold, subject) for fold in sorted(found, key=lambda one: one.fold_id)]


def metrics_of(names: str | None, subject: Subject) -> list[Metric]:
    """Return the scoring functions of a query; raises Refusal for one that there is not."""
    if names is None:
        try:
            return [DEFAULT[subject.kind]]
        except Unscorable as error:
            raise detail(409, f"There is no default scoring function: {error}.") from error
    asked = list(dict.fromkeys(names.split(",")))
    unknown = [name for name in asked if name not in METRICS]
    if unknown:
        raise no_function(unknown[0])
    return [METRICS[name] for name in asked]


def no_function(name: str) -> Refusal:
    """Refuse a scoring function that there is not."""
    wrong = {"pointer": "?/metric", "code": "unknown", "detail": f"There is no scoring function {name}."}
    return Refusal(400, {"detail": "1 things are not valid.", "errors": [wrong]})


def visible_parts(call: Call[Any, Any]) -> tuple[Part, ...]:
    """Return what the account may see scores of; a submission is given the labels of its training rows anyway."""
    if call.only_of is None or call.gateway.shows_test_scores:
        return tuple(Part)
    return (Part.TRAIN, Part.VALID)


def visible(call: Call[Any, Any], part: Part) -> Part:
    """Return the part if the account may see scores of it; raises Refusal."""
    if part not in visible_parts(call):
        raise forbidden()
    return part


def values_of(done: Sequence[Scored], which: Wanted) -> list[float]:
    """Return the values of the folds that have one."""
    return [value for one in done if (value := one.own[which].value) is not None]


def _of_submission(done: Sequence[Scored], metric: Metric, part: Part) -> SubmissionPart:
    which = (part, metric.name)
    mean, std = mean_and_std(values_of(done, which))
    folds = [
        OfFold(
            fold_id=one.fold.fold_id,
            attempt=one.fold.attempt,
            **_told(one.own[which]),
            bagged=one.bagged[which].value,
            bagged_folds=one.in_bag[part],
            bagged_reason=one.bagged[which].reason,
        )
        for one in done
    ]
    return SubmissionPart(
        part=part.value,
        metric=metric.name,
        lower_is_better=metric.is_lower_the_better,
        mean=mean,
        std=std,
        bagged=folds[-1].bagged if folds else None,
        folds=folds,
    )


def _told(score: Score) -> dict[str, Any]:
    return {"value": score.value, "reason": score.reason}


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/folds/{fold_id}/scores",
        handle=get_fold_scores,
        summary="Score a fold",
        tag="scores",
        query=ScoresQuery,
        answers={200: Says("Its scores.", FoldScores)},
        problems=(409,),
        example={"path": {"fold_id": 1}, "query": {"metric": "accuracy,log_loss"}},
    ),
    Operation(
        method="GET",
        path="/v1/submissions/{submission_id}/scores",
        handle=get_submission_scores,
        summary="Score a submission",
        tag="scores",
        query=ScoresQuery,
        answers={200: Says("The scores of its folds, each by itself and bagged.", SubmissionScores)},
        problems=(409,),
        example={"path": {"submission_id": 1}, "query": {"metric": "accuracy"}},
    ),
    Operation(
        method="GET",
        path="/v1/scoring-functions",
        handle=list_scoring_functions,
        summary="List the scoring functions",
        tag="scores",
        answers={200: Says("Every one that has a name.", Functions)},
    ),
)
