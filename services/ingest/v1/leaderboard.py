"""The submissions of a dataset, the best first, in pages that go on behind a place of the ranking."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from datarun.readmodel import scored
from datarun.readmodel.scored import ScoredFold
from datarun.scoring.folds import Part, Scored
from datarun.scoring.metrics import Metric
from datarun.scoring.score import mean_and_std
from services.ingest.refusals import detail
from services.ingest.scoring import subject_of
from services.ingest.v1.datasets import dataset_numbered
from services.ingest.v1.operation import Call, Operation, Says
from services.ingest.v1.pages import DEFAULT_ITEMS, Limit, Page, page_answer
from services.ingest.v1.scores import PartName, members, metrics_of, values_of, visible
from services.ingest.v1.values import Asked, DatasetId, SubmissionId, Told

MOST_FOLDS = 20_000
"""Of one dataset; `datarun rescore` scores any number."""
AT_ONCE = 2000
_PLACE = re.compile(r"(none|-?[0-9.]{1,30}(?:e[+-]?[0-9]{1,3})?):([1-9][0-9]{0,9})")

Place = tuple[bool, float, int]
"""Where a submission stands: whether it has no score, the score, lower for better, and its number."""


class LeaderboardQuery(Asked):
    """By what to rank, and which page."""

    metric: Annotated[
        str | None,
        Field(pattern="^[a-z0-9_]{1,40}$", description="A scoring function; by default accuracy, or rmse."),
    ] = None
    part: PartName = "valid"
    by: Annotated[
        Literal["bagged", "mean"],
        Field(description="`bagged` scores the mean prediction of all folds, `mean` is the mean of their scores."),
    ] = "bagged"
    limit: Limit = DEFAULT_ITEMS
    after: Annotated[
        str | None, Field(pattern=f"^{_PLACE.pattern}$", description="Go on behind this place: score:submission.")
    ] = None


class Standing(Told):
    """A submission's newest version in the ranking; how many of its folds are tested may differ from another's."""

    submission_id: SubmissionId
    submission_version: int
    dataset_id: DatasetId
    submitted_by: str
    metric: str
    part: PartName
    value: Annotated[float | None, Field(description="What it is ranked by; those without one come last.")]
    reason: Annotated[str | None, Field(description="Why there is no value.")] = None
    mean: float | None
    std: float | None
    bagged: float | None
    tested_folds: int


Leaderboard = Page[Standing]


async def get_leaderboard(call: Call[LeaderboardQuery, None]) -> web.StreamResponse:
    """Rank the submissions of a dataset that have a tested fold; a participant's own alone."""
    query, gateway, number = call.query, call.gateway, call.path["dataset_id"]
    subject = subject_of(await dataset_numbered(gateway, number))
    [metric] = metrics_of(query.metric, subject)
    part = visible(call, Part(query.part))
    groups: defaultdict[int, list[ScoredFold]] = defaultdict(list)
    for fold in await _tested(call):
        groups[fold.submission_id].append(fold)
    folds_of = await gateway.compute(lambda: [members(folds, subject) for folds in groups.values()])
    done = await gateway.scoring.of(folds_of, [metric], [part], curve=False)
    ranked = sorted(
        (_standing(folds[0], one, metric, part, by=query.by) for folds, one in zip(groups.values(), done, strict=True)),
        key=lambda standing: _place(standing, metric),
    )
    if query.after is not None:
        behind = _parsed(query.after, metric)
        ranked = [standing for standing in ranked if _place(standing, metric) > behind]
    shown = ranked[: query.limit]
    after = _named(shown[-1]) if len(ranked) > len(shown) else None
    return page_answer(call.request, Leaderboard, shown, after=after)


async def _tested(call: Call[LeaderboardQuery, None]) -> list[ScoredFold]:
    number, found, after = call.path["dataset_id"], [], 0
    while True:
        some = await call.gateway.database.run(
            lambda cursor: scored.folds_of_dataset(cursor, number, after=after, limit=AT_ONCE, only_of=call.only_of)  # noqa: B023 - used at once
        )
        found += some
        if len(found) > MOST_FOLDS:
            raise detail(409, f"Dataset {number} has more than {MOST_FOLDS} tested folds: see `datarun rescore`.")
        if len(some) < AT_ONCE:
            return found
        after = some[-1].fold_id


def _standing(fold: ScoredFold, done: list[Scored], metric: Metric, part: Part, *, by: str) -> Standing:
    which = (part, metric.name)
    mean, std = mean_and_std(values_of(done, which))
    bagged = done[-1].bagged[which]
    value = mean if by == "mean" else bagged.value
    own = (one.own[which].reason for one in done)
    reason = bagged.reason if by == "bagged" else next(filter(None, own), None)
    return Standing(
        submission_id=fold.submission_id,
        submission_version=fold.submission_version,
        dataset_id=fold.raw_data_id,
        submitted_by=fold.owner,
        metric=metric.name,
        part=part.value,
        value=value,
        reason=reason if value is None else None,
        mean=mean,
        std=std,
        bagged=bagged.value,
        tested_folds=len(done),
    )


def _place(standing: Standing, metric: Metric) -> Place:
    return _order(standing.value, standing.submission_id, metric)


def _order(value: float | None, submission_id: int, metric: Metric) -> Place:
    if value is None:
        return (True, 0.0, submission_id)
    return (False, value if metric.is_lower_the_better else -value, submission_id)


def _named(standing: Standing) -> str:
    return f"{'none' if standing.value is None else repr(standing.value)}:{standing.submission_id}"


def _parsed(text: str, metric: Metric) -> Place:
    match = _PLACE.fullmatch(text)
    try:
        value, number = (match[1], int(match[2])) if match else ("", 0)
        return _order(None if value == "none" else float(value), number, metric)
    except ValueError as error:
        raise detail(400, "There is no such place.") from error


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/datasets/{dataset_id}/leaderboard",
        handle=get_leaderboard,
        summary="Rank a dataset's submissions",
        tag="scores",
        query=LeaderboardQuery,
        answers={200: Says("A page of submissions, the best first.", Leaderboard)},
        problems=(409,),
        example={"path": {"dataset_id": 1}, "query": {"metric": "accuracy", "limit": 10}},
    ),
)
