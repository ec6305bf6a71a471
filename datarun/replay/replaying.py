"""The loop of a replay: read, choose, write, remember; at a bounded rate, from wherever the last one was ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from datarun.crashes import crash_point
from datarun.envelope import header
from datarun.log import EventLog, StoredRecord, TopicPartition
from datarun.projection.offsets import Offsets
from datarun.replay.selection import Filter
from datarun.replay.targets import Target

PIECES_A_SECOND = 10
"""A rate is held to in pieces of so much of a second."""

Save = Callable[[Offsets], None]
Told = Callable[[int, int], None]
"""Told how many records were read and how many there are to read."""


@dataclass(slots=True)
class Replay:
    """One replay of a span of the log; `written` counts records that were new to the target."""

    log: EventLog
    chosen: Filter
    start: Offsets
    end: Offsets
    told: Told = lambda _, __: None
    written: int = 0
    seconds: float = 0.0
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self) -> Counter[tuple[str, str]]:
        """Return how many records of each topic and type are meant, writing nothing; raises LogUnavailable."""
        for records, _ in self._batches():
            self.counted.update((record.topic, _type(record)) for record in records)
        return self.counted

    def run(self, target: Target, *, rate: float | None, save: Save) -> None:
        """Write what is meant, at most `rate` records a second, saving how far it came whenever the target has it all.

        Raises LogUnavailable, and what the target raises.
        """
        started = time.monotonic()
        save(self.start)
        for records, reached in self._batches():
            for piece in _pieces(records, rate):
                self.written += target.write(piece)
                crash_point("replay.after_piece")
                self._pause(started, rate)
            if target.reach(reached):
                crash_point("replay.before_save")
                save(reached)
            self.seconds = time.monotonic() - started
        target.finish()

    def _batches(self) -> Iterator[tuple[list[StoredRecord], Offsets]]:
        """Yield what is meant of each batch, and up to where the log was read then."""
        reached = dict(self.start)
        total, before = sum(self.end.values()) - sum(self.start.values()), sum(self.start.values())
        left = {tp: start for tp, start in self.start.items() if start < self.end[tp]}
        with closing(self.log.read(left, until_end=True)) as batches:  # type: ignore[type-var]
            for batch in batches:
                within = [one for one in batch if one.offset < self.end[TopicPartition(one.topic, one.partition)]]
                reached |= {TopicPartition(one.topic, one.partition): one.offset + 1 for one in within}
                yield [one for one in within if self.chosen.takes(one)], dict(reached)
                self.told(sum(reached.values()) - before, total)
                if all(reached[tp] >= self.end[tp] for tp in left):
                    break
        yield [], self.end
        self.told(total, total)

    def _pause(self, started: float, rate: float | None) -> None:
        if rate is not None:
            time.sleep(max(0.0, started + self.written / rate - time.monotonic()))


def _pieces(records: Sequence[StoredRecord], rate: float | None) -> Iterator[Sequence[StoredRecord]]:
    size = len(records) if rate is None else max(1, int(rate / PIECES_A_SECOND))
    for start in range(0, len(records), max(1, size)):
        yield records[start : start + size]


def _type(record: StoredRecord) -> str:
    return (header(record.headers, "ce_type") or "(no type)").removeprefix("datarun.")
