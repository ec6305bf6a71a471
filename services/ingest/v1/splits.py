"""Splits of datasets into train and test parts: the newest of each dataset, and what came of it.

The parts themselves are never told here; their digests only to organisers, for the test part holds the labels.
"""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from datarun.readmodel import catalogue
from datarun.readmodel.catalogue import ListedDataset
from services.ingest.refusals import not_found
from services.ingest.v1.datasets import Split, SplitState, split_of
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import ORGANISERS, Call, Operation, Says, answer
from services.ingest.v1.pages import ByNumber, Page, page_answer
from services.ingest.v1.values import DatasetId, Number, Text, Told


class SplitFilter(ByNumber):
    """Which splits to list; pages go on behind the number of a dataset."""

    dataset_id: Annotated[DatasetId, Number] | None = None
    state: SplitState | None = None
    task_id: Annotated[Text | None, Field(description="What its organiser was told to recognise it by.")] = None


class Part(Told):
    """A part of a dataset, or a file that its specific.py prepared."""

    name: str
    sha256: str
    size: Annotated[int, Field(description="Bytes.")]


class DatasetSplit(Split):
    """A split, and of which dataset it is."""

    dataset_id: DatasetId
    dataset_name: str
    parts: Annotated[list[Part] | None, Field(description="What it made; for organisers.")] = None


SplitPage = Page[DatasetSplit]


async def list_splits(call: Call[SplitFilter, None]) -> web.StreamResponse:
    """Return a page of splits."""
    query = call.query
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_splits(
            cursor, after=query.after, limit=query.limit, raw_data_id=query.dataset_id, task_id=query.task_id
        )
    )
    after = found[-1].raw_data_id if len(found) == query.limit else None
    splits = [_shown(one, call.account.role) for one in found]
    return page_answer(
        call.request, SplitPage, [one for one in splits if query.state in (None, one.state)], after=after
    )


async def find_split(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return the newest split of a dataset, if one was asked for."""
    dataset_id = call.path["dataset_id"]
    found = await call.gateway.database.run(
        lambda cursor: catalogue.list_splits(cursor, after=0, limit=1, raw_data_id=dataset_id, task_id=None)
    )
    if not found:
        raise not_found()
    return answer(_shown(found[0], call.account.role))


def _shown(dataset: ListedDataset, role: str) -> DatasetSplit:
    is_organiser = role in ORGANISERS
    split = split_of(dataset, with_error=is_organiser)
    return DatasetSplit(
        **split.model_dump(),
        dataset_id=dataset.raw_data_id,
        dataset_name=dataset.name,
        parts=_parts(dataset.split or {}) if is_organiser and split.state == "done" else None,
    )


def _parts(made: dict[str, Any]) -> list[Part]:
    named = [(name, made[name]) for name in ("train", "test") if made.get(name)]
    named += [(file["name"], file["blob"]) for file in made.get("prepared") or ()]
    return [Part(name=name, sha256=blob["sha256"], size=blob["size"]) for name, blob in named]


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/splits",
        handle=list_splits,
        summary="List splits",
        tag="datasets",
        query=SplitFilter,
        answers={200: Says("A page of splits by dataset, perhaps of fewer than `limit`.", SplitPage)},
        example={"query": {"state": "done", "limit": 10}},
    ),
    Operation(
        method="GET",
        path="/v1/splits/{dataset_id}",
        handle=find_split,
        summary="Look at a split",
        tag="datasets",
        answers={200: Says("The split.", DatasetSplit)},
        example={"path": {"dataset_id": 1}},
    ),
)
