"""A fold's predictions as an array: npy, csv, parquet or JSON, whichever the client can read."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import orjson
from aiohttp import web
from pydantic import Field

from datarun.blobs import BlobStore
from datarun.errors import BlobCorrupt, BlobMissing
from datarun.events import Blob
from services.ingest.refusals import detail, not_found
from services.ingest.v1.folds import find
from services.ingest.v1.inputs import choose
from services.ingest.v1.operation import JSON, Call, Operation, Says
from services.ingest.v1.values import Asked, Told

NPY, CSV, PARQUET = "application/x-npy", "text/csv", "application/vnd.apache.parquet"
FORMATS = {"npy": NPY, "csv": CSV, "parquet": PARQUET, "json": JSON}
_DTYPE = np.dtype("<f8")
MOST_DIMENSIONS = 8
"""A runner takes no more from a submission; what another producer says may be anything."""

Floats = npt.NDArray[np.float64]


class PredictionsQuery(Asked):
    """The wanted form; it wins over the Accept header."""

    format: Annotated[
        Literal["npy", "csv", "parquet", "json"] | None,
        Field(description="csv and parquet have a row a sample and a column an output, y0, y1 and so on."),
    ] = None


class Predictions(Told):
    """Predictions as nested lists; what is not finite is null."""

    fold_id: int
    attempt: int
    part: Literal["full-train", "test"]
    shape: list[int]
    predictions: list[object]


async def get_predictions(call: Call[PredictionsQuery, None]) -> web.StreamResponse:
    """Return the predictions of the newest attempt."""
    fold, part = await find(call), call.path["part"]
    name, shape = (
        (fold.test_predictions, fold.test_shape)
        if part == "test"
        else (fold.full_train_predictions, fold.full_train_shape)
    )
    if not fold.has_ended or name is None or shape is None:
        raise not_found()
    asked = call.query.format
    media_type = FORMATS[asked] if asked else choose(call.request.headers.get("Accept"), tuple(FORMATS.values()))
    headers = {"Datarun-Attempt": str(fold.attempt), "Datarun-Shape": ",".join(map(str, shape))}
    if media_type == JSON:
        about = {"fold_id": fold.fold_id, "attempt": fold.attempt, "part": part, "shape": shape}
        content = await call.gateway.compute(
            lambda: orjson.dumps(about | {"predictions": read(call.gateway.blobs, name, shape).tolist()})
        )
    else:
        write = _WRITERS[media_type or NPY]
        content = await call.gateway.compute(lambda: write(read(call.gateway.blobs, name, shape)))
    return web.Response(body=content, content_type=media_type, headers=headers)


def read(blobs: BlobStore, name: str, shape: list[int]) -> Floats:
    """Return the array of a blob named by `sha256:size`; raises Refusal for one that is not there, or not an array."""
    sha256, _, size = name.partition(":")
    if int(size) != math.prod(shape) * _DTYPE.itemsize:
        raise detail(409, "The predictions do not have the shape that was announced.")
    try:
        content = blobs.get(Blob(sha256=sha256, size=int(size)))
    except (BlobMissing, BlobCorrupt) as error:
        raise detail(503, "The predictions cannot be read now.", Retry_After="5") from error
    if len(content) != int(size) or len(shape) > MOST_DIMENSIONS:
        raise detail(409, "The predictions are not what was announced.")
    return np.frombuffer(content, dtype=_DTYPE).reshape(shape)


def _npy(array: Floats) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return out.getvalue()


def _csv(array: Floats) -> bytes:
    columns = _columns(array)
    lines = [",".join(columns), *(",".join(map(repr, row)) for row in np.column_stack(list(columns.values())).tolist())]
    return ("\n".join(lines) + "\n").encode()


class _Kept(io.BytesIO):
    """Bytes that can still be read when whoever wrote them has closed them."""

    def close(self) -> None:
        """Keep them."""


def _parquet(array: Floats) -> bytes:
    # Half a second that few need. Not pyarrow: where it is installed pandas computes with it, in submissions too.
    import fastparquet  # type: ignore[import-untyped]  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415

    out = _Kept()
    fastparquet.write("predictions", pd.DataFrame(_columns(array)), open_with=lambda *_: out)
    return out.getvalue()


def _columns(array: Floats) -> dict[str, Floats]:
    rows = array.reshape(len(array), -1) if array.size else array.reshape(len(array), max(1, array.shape[-1]))
    return {f"y{number}": np.ascontiguousarray(rows[:, number]) for number in range(rows.shape[1])}


_WRITERS: dict[str, Callable[[Floats], bytes]] = {NPY: _npy, CSV: _csv, PARQUET: _parquet}

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/folds/{fold_id}/predictions/{part}",
        handle=get_predictions,
        summary="Fetch a fold's predictions",
        tag="predictions",
        query=PredictionsQuery,
        answers={
            200: Says(
                "The predictions, float64; `Datarun-Shape` tells their shape.",
                Predictions,
                tuple(FORMATS.values()),
                {"Datarun-Attempt": "The attempt they are of.", "Datarun-Shape": "Their shape, such as 75,3."},
            )
        },
        problems=(409,),
        example={"path": {"fold_id": 1, "part": "test"}, "query": {"format": "json"}},
    ),
)
