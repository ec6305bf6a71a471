"""Files of submissions and datasets as one memory file each, kept for the next fold that needs the same ones."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from datarun.blobs import BlobStore
from datarun.events import NamedBlob
from services.runner.execution import messages
from services.runner.execution.data import get
from services.runner.execution.isolated import wire

CAPACITY_BYTES = 256 << 20
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files as they travel; the descriptor is the owner's to close."""

    files: list[tuple[str, int]]
    descriptor: int


class Bundles:
    """The bundles used last; thread-safe."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[tuple[str, str], ...], Bundle] = OrderedDict()

    def get(self, files: Sequence[NamedBlob]) -> Bundle:
        """Return the files in a bundle of the caller's own; raises FoldFailure for a name that is none."""
        key = tuple((file.name, file.blob.sha256) for file in files)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return Bundle(kept.files, os.dup(kept.descriptor))
        bundle = self._make(files)
        self._keep(key, Bundle(bundle.files, os.dup(bundle.descriptor)))
        return bundle

    def _make(self, files: Sequence[NamedBlob]) -> Bundle:
        for file in files:
            if not FILE_NAME.match(file.name):
                raise messages.split_refusal(repr(ValueError(f"{file.name!r} is not a file name")))
        contents = [get(self._blobs, file.blob) for file in files]
        listed = [(file.name, len(content)) for file, content in zip(files, contents, strict=True)]
        return Bundle(listed, wire.sealed(contents))

    def _keep(self, key: tuple[tuple[str, str], ...], bundle: Bundle) -> None:
        with self._lock:
            replaced = self._kept.pop(key, None)
            self._kept[key] = bundle
            dropped = [replaced] if replaced else []
            while len(self._kept) > 1 and self._size() > CAPACITY_BYTES:
                dropped.append(self._kept.popitem(last=False)[1])
        wire.close([bundle.descriptor for bundle in dropped])

    def _size(self) -> int:
        return sum(size for bundle in self._kept.values() for _, size in bundle.files)

    def close(self) -> None:
        """Let go of every bundle."""
        with self._lock:
            wire.close([bundle.descriptor for bundle in self._kept.values()])
            self._kept.clear()
