"""Values on their way into a process: numeric arrays as raw bytes in their own memory order, anything else pickled.

A parcel is one sealed memory file with the values one after the other, and a header for each. Only a process that
runs the submission anyway unpickles, and only what the loader or the organiser's code packed.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from .wire import Message, read, read_into, sealed

_RAW_KINDS = "biufc"


def pack(values: Sequence[Any]) -> tuple[list[Message], int]:
    """Return the headers and the memory file of some values."""
    headers, parts = [], []
    for value in values:
        header, part = _encode(value)
        headers.append(header)
        parts.append(part)
    return headers, sealed(parts)


def unpack(headers: Sequence[Message], descriptor: int) -> list[Any]:
    """Return the values of a parcel; arrays are writable copies in the memory order they were packed in."""
    values, offset = [], 0
    for header in headers:
        values.append(_decode(header, descriptor, offset))
        offset += header["size"]
    return values


def _encode(value: Any) -> tuple[Message, bytes | memoryview]:
    if type(value) is not np.ndarray or value.dtype.kind not in _RAW_KINDS or value.size == 0:
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        return {"size": len(content)}, content
    transposed = value.flags.f_contiguous and not value.flags.c_contiguous
    flat = np.ascontiguousarray(value.T if transposed else value)
    header = {"size": flat.nbytes, "dtype": flat.dtype.str, "shape": flat.shape, "transposed": transposed}
    return header, flat.reshape(-1).view(np.uint8).data


def _decode(header: Message, descriptor: int, offset: int) -> Any:
    if "dtype" not in header:
        return pickle.loads(read(descriptor, header["size"], offset))  # noqa: S301 - see the module's docstring
    flat = np.empty(math.prod(header["shape"]), dtype=np.dtype(header["dtype"]))
    read_into(descriptor, flat.view(np.uint8).data, offset)
    value = flat.reshape(header["shape"])
    return value.T if header["transposed"] else value
