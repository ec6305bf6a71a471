"""Recalling results: the folds whose newest result is of one runner, environment or data, asked for once more.

Each becomes a new attempt through the gateway's claims, once: with a key made of the doubted attempt. A fold whose
newer attempt is asked for already is left alone, so a recall that was interrupted goes on when it is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

import requests

from datarun.envelope import check_route, decode
from datarun.errors import DatarunError, Rejected
from datarun.events import Event, FoldFailed, FoldRequested, FoldTested
from datarun.gateway_client import GatewayRefused, GatewayUnavailable
from datarun.log import EventLog, StoredRecord
from datarun.topics import FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue, Topic

Told = Callable[[int, int], None]
"""Told how much is done and how much there is to do."""
ANSWER_SECONDS = 30.0
_TRY_AGAIN = 500


@dataclass(frozen=True, slots=True)
class Doubt:
    """Which results are not trusted any more: all that is said must hold of one."""

    runner: str | None = None
    """A runner's id, or a pattern of ids such as gpu1-*."""
    environment: str | None = None
    """The beginning of the digest in a result's provenance; failures have none."""
    raw_data_id: int | None = None
    before: datetime | None = None
    """By the broker's clock."""

    def covers(self, result: FoldTested | FoldFailed, record: StoredRecord) -> bool:
        """Tell whether a result is doubted."""
        provenance = result.provenance if isinstance(result, FoldTested) else None
        return (
            (self.runner is None or fnmatchcase(result.runner_id, self.runner))
            and self.raw_data_id in (None, result.raw_data_id)
            and (self.before is None or record.timestamp_ms < self.before.timestamp() * 1000)
            and (
                self.environment is None
                or (provenance is not None and provenance.environment.startswith(self.environment))
            )
        )


@dataclass(frozen=True, slots=True)
class Recalled:
    """A fold to ask for again, and whose result it has."""

    fold_id: int
    attempt: int
    runner_id: str
    tested: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recall comes to: the folds to ask for, and how many doubted ones are left alone, and why."""

    folds: list[Recalled]
    asked_already: int
    replaced: int


@dataclass(frozen=True, slots=True)
class Client:
    """A gateway, and the account of an organiser that recalls."""

    url: str
    user: str
    password: str

    def ask(self, fold: Recalled) -> None:
        """Ask for a new attempt, as it was asked for before; raises GatewayUnavailable, GatewayRefused."""
        key = f"recall:{fold.fold_id}:{fold.attempt}"
        try:
            answer = requests.post(
                f"{self.url.rstrip('/')}/v1/folds/{fold.fold_id}/retry",
                # requests sends text as Latin-1; so each byte of UTF-8 becomes a character.
                auth=(self.user.encode().decode("latin-1"), self.password.encode().decode("latin-1")),
                headers={"Idempotency-Key": key},
                timeout=ANSWER_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise GatewayUnavailable(f"the gateway at {self.url} does not answer: {error}") from error
        if answer.status_code >= _TRY_AGAIN:
            raise GatewayUnavailable(f"the gateway at {self.url} answers {answer.status_code}")
        if not answer.ok:
            raise GatewayRefused(answer.status_code, answer.text[:300])


class NothingSaid(DatarunError):
    """Say --runner, --environment or --dataset: everything is never recalled by accident."""


@dataclass(frozen=True, slots=True)
class _Ending:
    attempt: int
    runner_id: str
    tested: bool
    doubted: bool


def plan(log: EventLog, doubt: Doubt, *, catalogue: Catalogue, told: Told = lambda _, __: None) -> Plan:
    """Return what is to be recalled, from the log alone; raises NothingSaid, LogUnavailable."""
    if doubt.runner is None and doubt.environment is None and doubt.raw_data_id is None:
        raise NothingSaid
    endings = _endings(_events(log, [FOLD_EVENTS], catalogue, told), doubt)
    requests_of, versions = _requests(_events(log, [FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW], catalogue, told))
    folds, asked_already, replaced = [], 0, 0
    for fold_id in sorted(fold_id for fold_id, ending in endings.items() if ending.doubted):
        ending, request = endings[fold_id], requests_of.get(fold_id)
        if request is None or request.attempt > ending.attempt:
            asked_already += 1
        elif request.version < versions[request.submission_id]:
            replaced += 1
        else:
            folds.append(Recalled(fold_id, ending.attempt, ending.runner_id, ending.tested))
    return Plan(folds, asked_already, replaced)


class _Request(NamedTuple):
    attempt: int
    submission_id: int
    version: int


def _endings(events: Iterable[tuple[Event, StoredRecord]], doubt: Doubt) -> dict[int, _Ending]:
    """Return the first terminal event of each fold's newest attempt that has one."""
    found: dict[int, _Ending] = {}
    for event, record in events:
        if not isinstance(event, FoldTested | FoldFailed):
            continue
        known = found.get(event.fold_id)
        if known is None or event.attempt > known.attempt:
            tested = isinstance(event, FoldTested)
            found[event.fold_id] = _Ending(event.attempt, event.runner_id, tested, doubt.covers(event, record))
    return found


def _requests(events: Iterable[tuple[Event, StoredRecord]]) -> tuple[dict[int, _Request], dict[int, int]]:
    """Return the request of each fold's newest attempt, and each submission's newest version."""
    found: dict[int, _Request] = {}
    versions: dict[int, int] = {}
    for event, _ in events:
        if not isinstance(event, FoldRequested):
            continue
        known = found.get(event.fold_id)
        versions[event.submission_id] = max(versions.get(event.submission_id, 0), event.submission_version)
        if known is None or event.attempt > known.attempt:
            found[event.fold_id] = _Request(event.attempt, event.submission_id, event.submission_version)
    return found, versions


def _events(
    log: EventLog, topics: list[Topic], catalogue: Catalogue, told: Told
) -> Iterator[tuple[Event, StoredRecord]]:
    ends = log.end_offsets([catalogue.full_name(topic) for topic in topics])
    seen = 0
    for batch in log.read(dict.fromkeys(ends, 0), until_end=True):
        for record in batch:
            with suppress(Rejected):
                event = decode(record.value, record.headers)
                check_route(event, record, catalogue=catalogue)
                yield event, record
        seen += len(batch)
        told(seen, sum(ends.values()))
