"""The loader: a trusted process that reads the parts of datasets and cuts each fold's rows out of them.

The labels of the test part, and those of the rows outside a fold, are nowhere but here.
"""

from __future__ import annotations

import io
import os
import socket
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import kernel
from .parcels import pack
from .rows import check_positions, read_positions
from .wire import Message, close, read, receive, send

Parcel = tuple[list[Message], int]
ONE_SPLIT = 2
"""Parts that stay whatever their size: a train and a test part."""


@dataclass(slots=True)
class Part:
    """A parsed part of a dataset; size in bytes of its CSV; what was asked of it: X by target, X packed."""

    frame: pd.DataFrame
    size: int
    features: dict[str, pd.DataFrame]
    parcels: dict[tuple[str, bool], Parcel]

    def without(self, target: str) -> pd.DataFrame:
        """Return the columns that a submission may see."""
        if target not in self.features:
            self.features[target] = self.frame.drop(columns=[target])
        return self.features[target]

    def parcel(self, target: str, *, framed: bool) -> Parcel:
        """Return the whole X, packed once."""
        key = (target, framed)
        if key not in self.parcels:
            X = self.without(target)
            self.parcels[key] = pack([X if framed else np.array(X)])
        return self.parcels[key]


class Loader:
    """Parsed parts by the sha256 of their CSV, the longest unused dropped first."""

    def __init__(self, runner: socket.socket, *, capacity_bytes: int) -> None:
        self._runner = runner
        self._capacity = capacity_bytes
        self._parts: OrderedDict[str, Part] = OrderedDict()

    def serve(self) -> None:
        """Answer until the runner is gone."""
        while (received := receive(self._runner)) is not None:
            request, descriptors = received
            try:
                answer, parcels = self._answer(request, descriptors)
            except (ValueError, KeyError, IndexError, MemoryError) as error:
                answer, parcels = {"failed": repr(error)}, []
            send(self._runner, answer, parcels)
            close([*descriptors, *parcels])

    def _answer(self, request: Message, descriptors: list[int]) -> tuple[Message, list[int]]:
        if request["ask"] == "store":
            self._store(request["sha256"], descriptors[0])
            return {}, []
        missing = [sha256 for sha256 in (request["train"], request["test"]) if sha256 not in self._parts]
        if missing:
            return {"missing": missing}, []
        return self._slice(request, descriptors[0])

    def _store(self, sha256: str, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        frame = pd.read_csv(io.BytesIO(read(descriptor, size)))
        self._parts[sha256] = Part(frame, size, {}, {})
        while len(self._parts) > ONE_SPLIT and sum(part.size for part in self._parts.values()) > self._capacity:
            _, dropped = self._parts.popitem(last=False)
            close([descriptor for _, descriptor in dropped.parcels.values()])

    def _slice(self, request: Message, indices: int) -> tuple[Message, list[int]]:
        target, framed = request["target"], request["framed"]
        train, test = (self._use(request[part]) for part in ("train", "test"))
        positions = read_positions(indices)
        check_positions(positions, len(train.frame))
        X, y = train.without(target).iloc[positions], train.frame[target].iloc[positions]
        fold = pack([X, y] if framed else [np.array(X), np.array(y)])
        full, tested = train.parcel(target, framed=framed), test.parcel(target, framed=framed)
        answer: Message = {
            "train_rows": len(train.frame),
            "test_rows": len(test.frame),
            "headers": [fold[0], full[0], tested[0]],
        }
        return answer, [fold[1], os.dup(full[1]), os.dup(tested[1])]

    def _use(self, sha256: str) -> Part:
        self._parts.move_to_end(sha256)
        return self._parts[sha256]


def main(arguments: list[str]) -> None:
    """Serve the runner at the other end of standard input."""
    kernel.rename("datarun-loader")
    Loader(socket.socket(fileno=os.dup(0)), capacity_bytes=int(arguments[0])).serve()
