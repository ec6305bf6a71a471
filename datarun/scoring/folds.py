"""The scores of tested folds: each fold's own, and those of the mean prediction of a submission's first n folds."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from datarun.blobs import BlobStore
from datarun.events import Blob
from datarun.scoring.bag import Bag
from datarun.scoring.metrics import Array, Kind, Metric
from datarun.scoring.predictions import LARGEST_BYTES, Stored, aligned, load, load_rows
from datarun.scoring.score import NO_SCORE, Score, no_score, score
from datarun.scoring.truth import Subject, Truth, Truths

VERSION = 1
"""Raised when the same content comes to other scores."""
MOST_KEPT = 200_000


class Part(StrEnum):
    """Which rows are scored."""

    TRAIN = "train"
    """Those the submission was trained on."""
    VALID = "valid"
    """Those of the train part that the fold left out."""
    TEST = "test"
    """The test part, whose labels no submission sees."""


@dataclass(frozen=True, slots=True)
class TestedFold:
    """A fold's predictions and all that its scores are made from besides."""

    fold_id: int
    attempt: int
    subject: Subject
    train_is: Blob
    test_is: Blob
    full_train: Stored
    test: Stored

    @property
    def digest(self) -> bytes:
        """The sha256 of all that a score depends on but for the function."""
        subject = self.subject
        parts = [part.sha256 for part in (subject.split.train, subject.split.test) if part] if subject.split else []
        stored = [(one.blob.sha256, one.blob.size, one.shape) for one in (self.full_train, self.test)]
        said = (VERSION, subject.target, subject.workflow_elements, parts, stored)
        return hashlib.sha256(repr((*said, self.train_is.sha256, self.test_is.sha256)).encode()).digest()


Wanted = tuple[Part, str]
"""A part and the name of a scoring function."""
Scores = dict[Wanted, Score]


@dataclass(slots=True)
class Scored:
    """A fold's scores, and those of the mean prediction of the folds up to it, of how many at that."""

    fold: TestedFold
    own: Scores = field(default_factory=dict)
    bagged: Scores = field(default_factory=dict)
    in_bag: dict[Part, int] = field(default_factory=dict)


class Kept:
    """Scores by a digest of all they come from, those used last."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._found: OrderedDict[bytes, tuple[Score, int]] = OrderedDict()

    def get(self, key: bytes) -> tuple[Score, int] | None:
        """Return a score and how many folds it is of."""
        if key in self._found:
            self._found.move_to_end(key)
        return self._found.get(key)

    def put(self, key: bytes, found: Score, folds: int) -> None:
        """Remember a score that stays as it is."""
        if found.is_final:
            self._found[key] = (found, folds)
            while len(self._found) > self._most:
                self._found.popitem(last=False)


class _Digests(NamedTuple):
    """A fold, a digest of what it is scored from, and one of that and all before it."""

    fold: TestedFold
    own: bytes
    bag: bytes


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores folds from a blob store; not for several threads at once."""

    blobs: BlobStore
    truths: Truths
    kept: Kept = field(default_factory=Kept)
    largest_bytes: int = LARGEST_BYTES
    """More predictions of a fold are not brought into memory, which holds them about four times."""

    def score(
        self, folds: Sequence[TestedFold], metrics: Sequence[Metric], parts: Sequence[Part], *, curve: bool = True
    ) -> list[Scored]:
        """Return the scores of a submission's folds in their order; without the curve only the last has a bagged score.

        In memory are one fold's predictions at a time and, for each part, one sum of them. Raises BlobsUnavailable.
        """
        known = self._known(folds, metrics, parts, curve=curve)
        if known is not None:
            return known
        bags = {part: Bag() for part in parts}
        found = [self._score(fold, metrics, bags, is_bagged=curve) for fold in folds[:-1]]
        found += [self._score(fold, metrics, bags, is_bagged=True) for fold in folds[-1:]]
        self._remember(found, metrics)
        return found

    def _score(self, fold: TestedFold, metrics: Sequence[Metric], bags: dict[Part, Bag], *, is_bagged: bool) -> Scored:
        reading = _Reading(fold, self.blobs, self.truths, self.largest_bytes)
        scored = Scored(fold)
        for part, bag in bags.items():
            try:
                truth, rows, predictions = reading.part(part)
                own = predictions if rows is None else predictions[rows]
                bag.add(truth, rows, predictions)
            except NO_SCORE as error:
                bag.miss(no_score(error))
                scored.own |= {(part, metric.name): no_score(error) for metric in metrics}
            else:
                scored.own |= {(part, metric.name): score(metric, truth, rows, own) for metric in metrics}
            if is_bagged:
                scored.bagged |= {(part, metric.name): bag.score(metric) for metric in metrics}
                scored.in_bag[part] = bag.folds
        return scored

    def _known(
        self, folds: Sequence[TestedFold], metrics: Sequence[Metric], parts: Sequence[Part], *, curve: bool
    ) -> list[Scored] | None:
        """Return what is remembered, None unless it is all."""
        wanted = [(part, metric.name) for part in parts for metric in metrics]
        found = []
        for number, digests in enumerate(_digests(folds), 1):
            scored = self._recall(digests, wanted, is_bagged=curve or number == len(folds))
            if scored is None:
                return None
            found.append(scored)
        return found

    def _recall(self, digests: _Digests, wanted: Sequence[Wanted], *, is_bagged: bool) -> Scored | None:
        scored = Scored(digests.fold)
        for which in wanted:
            own, bagged = (self.kept.get(_key(digest, which)) for digest in (digests.own, digests.bag))
            if own is None or (bagged is None and is_bagged):
                return None
            scored.own[which] = own[0]
            if bagged is not None and is_bagged:
                scored.bagged[which], scored.in_bag[which[0]] = bagged
        return scored

    def _remember(self, scored: Sequence[Scored], metrics: Sequence[Metric]) -> None:
        # The name of an operator's own function says nothing of what it does.
        lasting = {metric.name for metric in metrics if not metric.is_trusted}
        for one, digests in zip(scored, _digests([one.fold for one in scored]), strict=True):
            for which in (which for which in one.own if which[1] in lasting):
                self.kept.put(_key(digests.own, which), one.own[which], 1)
                if which in one.bagged:
                    self.kept.put(_key(digests.bag, which), one.bagged[which], one.in_bag[which[0]])


class _Reading:
    """Reads what the parts of one fold are scored from."""

    def __init__(self, fold: TestedFold, blobs: BlobStore, truths: Truths, largest_bytes: int) -> None:
        self._fold = fold
        self._blobs = blobs
        self._truths = truths
        self._largest = largest_bytes
        self._loaded: dict[str, Array] = {}

    def part(self, part: Part) -> tuple[Truth, Array | None, Array]:
        """Return the labels of a part, the rows to score, None for all, and the predictions of all its rows.

        Raises Unscorable, BlobMissing, BlobCorrupt, BlobsUnavailable.
        """
        fold = self._fold
        train = self._truths.train(fold.subject)
        seen = self._seen(train)
        if part is Part.TEST:
            truth = self._truths.test(fold.subject)
            predictions = load(self._blobs, fold.test, rows=len(truth.labels), largest_bytes=self._largest)
            return truth, None, aligned(predictions, truth, seen, largest_bytes=self._largest)
        rows = load_rows(self._blobs, fold.train_is if part is Part.TRAIN else fold.test_is, rows=len(train.labels))
        loaded = self._once(
            "full_train",
            lambda: load(self._blobs, fold.full_train, rows=len(train.labels), largest_bytes=self._largest),
        )
        return train, rows, self._once("aligned", lambda: aligned(loaded, train, seen, largest_bytes=self._largest))

    def _seen(self, train: Truth) -> Array:
        """Return the classes of the rows that the submission was trained on."""
        if train.kind is Kind.REGRESSION:
            return train.classes
        rows = self._once("train_is", lambda: load_rows(self._blobs, self._fold.train_is, rows=len(train.labels)))
        return np.unique(train.labels[rows])

    def _once(self, name: str, read: Callable[[], Array]) -> Array:
        if name not in self._loaded:
            self._loaded[name] = read()
        return self._loaded[name]


def _digests(folds: Sequence[TestedFold]) -> Iterator[_Digests]:
    chain = hashlib.sha256(b"bag")
    for fold in folds:
        own = fold.digest
        chain.update(own)
        yield _Digests(fold, own, chain.digest())


def _key(digest: bytes, which: Wanted) -> bytes:
    return hashlib.sha256(digest + ":".join(which).encode()).digest()
