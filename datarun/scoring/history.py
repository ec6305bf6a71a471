"""Every attempt that was ever tested, from the log alone, with what its scores are made from.

What counts of an attempt is its first terminal event. Memory holds some references an attempt, no event.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from datarun import envelope
from datarun.errors import Rejected
from datarun.events import Blob, Event, FoldCancelled, FoldFailed, FoldRequested, FoldTested
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.scoring.folds import TestedFold
from datarun.scoring.predictions import Stored
from datarun.scoring.truth import Subject
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue, Topic

Told = Callable[[int, int], None]
"""Told how many records were read and how many there are."""
Offsets = dict[TopicPartition, int]
READ = (FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, FOLD_EVENTS)


class Status(StrEnum):
    """Whether an attempt is what its fold has come to."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    """A newer attempt of the fold was asked for."""
    REPLACED = "replaced"
    """Its submission has a newer version."""


class Group(NamedTuple):
    """The folds that are bagged together: those of one version of a submission, on one split."""

    raw_data_id: int
    submission_id: int
    version: int
    subject: Subject


class _Predicted(NamedTuple):
    """What names predictions, in few bytes: there may be millions."""

    digest: bytes
    size: int
    shape: tuple[int, ...]

    @property
    def stored(self) -> Stored:
        return Stored(Blob(sha256=self.digest.hex(), size=self.size), self.shape)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A tested attempt."""

    subject: Subject
    fold_id: int
    attempt: int
    status: Status
    is_newest: bool
    """Whether no newer attempt of the fold was asked for with the same version of its submission."""
    train_is: Blob
    test_is: Blob
    full_train: _Predicted
    test: _Predicted

    @property
    def fold(self) -> TestedFold:
        """What its scores are made from."""
        predicted = (self.full_train.stored, self.test.stored)
        return TestedFold(self.fold_id, self.attempt, self.subject, self.train_is, self.test_is, *predicted)


@dataclass(slots=True)
class History:
    """The tested attempts by fold and attempt, in groups by number; what else ended is counted."""

    groups: dict[Group, list[Attempt]] = field(default_factory=dict)
    failed: int = 0
    unrequested: int = 0
    """Results whose request is not in the log."""

    @property
    def attempts(self) -> int:
        """How many there are to score."""
        return sum(map(len, self.groups.values()))


class _Request(NamedTuple):
    group: Group
    train_is: Blob
    test_is: Blob


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose folds; None is everybody's."""

    raw_data_id: int | None = None
    submission_id: int | None = None

    def includes(self, event: FoldRequested) -> bool:
        """Tell whether a request is of a wanted dataset and submission."""
        return self.raw_data_id in (None, event.dataset.raw_data_id) and self.submission_id in (
            None,
            event.submission_id,
        )


def end_of(log: EventLog, *, catalogue: Catalogue) -> Offsets:
    """Return where the log ends now; raises LogUnavailable."""
    return log.end_offsets([catalogue.full_name(topic) for topic in READ])


def read_history(
    log: EventLog, wanted: Wanted, end: Offsets, *, catalogue: Catalogue, told: Told = lambda _, __: None
) -> History:
    """Return what the log up to some offsets says; raises LogUnavailable."""
    reading = _Reading(log, end, catalogue, told)
    requests = _Requests()
    for event in reading.of((FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW), FoldRequested):
        assert isinstance(event, FoldRequested)  # noqa: S101 - no other kind was asked for
        requests.take(event, is_wanted=wanted.includes(event))
    history = History()
    found: defaultdict[Group, list[Attempt]] = defaultdict(list)
    ended: set[tuple[int, int]] = set()
    for event in reading.of((FOLD_EVENTS,), FoldTested, FoldFailed, FoldCancelled):
        assert isinstance(event, FoldTested | FoldFailed | FoldCancelled)  # noqa: S101 - the same
        place = (event.fold_id, event.attempt)
        if place in ended or place in requests.unwanted:
            continue
        ended.add(place)
        request = requests.of.get(place)
        if not isinstance(event, FoldTested):
            history.failed += request is not None
        elif request is None:
            history.unrequested += 1
        else:
            found[request.group].append(requests.attempt(request, event))
    for group in sorted(found, key=lambda one: (one[:3], repr(one.subject))):
        history.groups[group] = sorted(found[group], key=lambda one: (one.fold_id, one.attempt))
    return history


class _Requests:
    """The requests of wanted folds, and what is the newest of which."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], _Request] = {}
        self.unwanted: set[tuple[int, int]] = set()
        self._newest: Counter[int] = Counter()
        self._newest_of_version: Counter[tuple[int, int, int]] = Counter()
        self._versions: Counter[int] = Counter()
        self._groups: dict[Group, Group] = {}
        self._blobs: dict[tuple[str, int], Blob] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def take(self, event: FoldRequested, *, is_wanted: bool) -> None:
        """Take a request; of several deliveries of an attempt the first speaks."""
        place = (event.fold_id, event.attempt)
        if not is_wanted:
            self.unwanted.add(place)
            return
        if place in self.of:
            return
        dataset, submission, version = event.dataset, event.submission_id, event.submission_version
        subject = Subject(dataset.target_column, dataset.workflow_elements, dataset.split)
        group = Group(dataset.raw_data_id, submission, version, subject)
        indices = (self._shared(event.train_is), self._shared(event.test_is))
        self.of[place] = _Request(self._groups.setdefault(group, group), *indices)
        self._newest[event.fold_id] = max(self._newest[event.fold_id], event.attempt)
        whose = (event.fold_id, submission, version)
        self._newest_of_version[whose] = max(self._newest_of_version[whose], event.attempt)
        self._versions[submission] = max(self._versions[submission], version)

    def attempt(self, request: _Request, event: FoldTested) -> Attempt:
        """Return a tested attempt."""
        group = request.group
        if group.version < self._versions[group.submission_id]:
            status = Status.REPLACED
        elif event.attempt < self._newest[event.fold_id]:
            status = Status.SUPERSEDED
        else:
            status = Status.CURRENT
        newest = self._newest_of_version[event.fold_id, group.submission_id, group.version]
        return Attempt(
            group.subject,
            event.fold_id,
            event.attempt,
            status,
            event.attempt == newest,
            request.train_is,
            request.test_is,
            self._predicted(event.full_train_predictions, event.full_train_shape),
            self._predicted(event.test_predictions, event.test_shape),
        )

    def _predicted(self, blob: Blob, shape: tuple[int, ...]) -> _Predicted:
        return _Predicted(bytes.fromhex(blob.sha256), blob.size, self._shapes.setdefault(shape, shape))

    def _shared(self, blob: Blob) -> Blob:
        """Return the one object of equal indices; all submissions of a dataset have the same."""
        return self._blobs.setdefault((blob.sha256, blob.size), blob)


class _Reading:
    """Reads topics from their beginning up to given offsets."""

    def __init__(self, log: EventLog, end: Offsets, catalogue: Catalogue, told: Told) -> None:
        self._log = log
        self._end = end
        self._catalogue = catalogue
        self._told = told
        self._seen = 0

    def of(self, topics: tuple[Topic, ...], *kinds: type[Event]) -> Iterator[Event]:
        """Yield the events of some kinds; what is no event is passed."""
        names = {self._catalogue.full_name(topic) for topic in topics}
        wire_types = {kind.type_name() for kind in kinds}
        left = {tp: 0 for tp, end in self._end.items() if tp.topic in names and end}
        total = sum(self._end.values())
        for batch in self._log.read(left, until_end=True) if left else ():
            for record in batch:
                if record.offset >= self._end[TopicPartition(record.topic, record.partition)]:
                    continue
                # Decoding is what takes time.
                if envelope.header(record.headers, "ce_type") in wire_types:
                    with suppress(Rejected):
                        yield self._decoded(record)
            self._seen += len(batch)
            self._told(min(self._seen, total), total)

    def _decoded(self, record: StoredRecord) -> Event:
        event = envelope.decode(record.value, record.headers)
        envelope.check_route(event, record, catalogue=self._catalogue)
        return event
