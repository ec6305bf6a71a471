"""Taking predictions from a child: nothing it says is believed before it is checked, and nothing is unpickled."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from datarun.errors import FoldFailure
from datarun.events import Cause, Fault, Stage
from services.runner.execution import messages
from services.runner.execution.isolated.wire import Garbled, Message, sealed_size
from services.runner.execution.outcomes import Predictions

MIB = 1 << 20
_ITEM_BYTES = 8
_MAX_DIMENSIONS = 8


def take(stage: Stage, message: Message, descriptor: int, *, limit_mib: int) -> Predictions:
    """Return the array a child sent; raises FoldFailure when it is not what its header says or too large."""
    shape = _shape_of(stage, message)
    size = math.prod(shape) * _ITEM_BYTES
    if size > limit_mib * MIB:
        text = f"predictions of {size // MIB} MiB exceed the limit of {limit_mib} MiB"
        raise messages.failure(stage, Cause.OUTPUT_SHAPE, Fault.LIMIT, text)
    try:
        sent = sealed_size(descriptor)
    except Garbled as error:
        raise messages.protocol_error(stage, str(error)) from error
    if sent != size:
        raise messages.protocol_error(stage, "the predictions have another size than their header says")
    return Predictions(os.pread(descriptor, size, 0), shape)


def check(stage: Stage, predictions: Predictions, *, rows: int, columns: tuple[int, ...] | None = None) -> None:
    """Raise FoldFailure unless there is one finite prediction for each row, of as many columns as are expected."""
    shape = predictions.shape
    if not shape:
        raise messages.wrong_predictions(stage, "shape", shape, (rows,))
    if shape[0] != rows:
        raise messages.wrong_predictions(stage, "size", shape[0], rows)
    if columns is not None and shape[1:] != columns:
        raise messages.wrong_predictions(stage, "shape", shape, (rows, *columns))
    values = np.frombuffer(predictions.content, dtype="<f8")
    if not np.isfinite(values).all():
        raise _not_finite(stage, values, width=math.prod(shape[1:]))


def _shape_of(stage: Stage, message: Message) -> tuple[int, ...]:
    shape = message.get("shape")
    if message.get("dtype") != "<f8" or not _is_shape(shape):
        raise messages.protocol_error(stage, "the header of the predictions is not one")
    return tuple(shape)  # type: ignore[arg-type]


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        return False
    return all(type(length) is int and length >= 0 for length in shape)


def _not_finite(stage: Stage, values: np.ndarray[Any, Any], *, width: int) -> FoldFailure:
    counts = (int(np.isnan(values).sum()), "NaN"), (int(np.isinf(values).sum()), "infinite")
    first = int(np.flatnonzero(~np.isfinite(values))[0]) // width
    text = " and ".join(f"{count} {what}" for count, what in counts if count)
    return messages.failure(stage, Cause.OUTPUT_VALUE, Fault.USER, f"{text}, first at row {first}")
