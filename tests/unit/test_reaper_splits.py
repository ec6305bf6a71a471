"""When a split is asked for again: nobody that speaks names it, and its patience is over."""

from __future__ import annotations

from datarun.envelope import decode, encode
from datarun.events import SplitRequested, StandardSplit
from datarun.leases import LONGEST_PATIENCE_SECONDS, PATIENCE_SECONDS, PendingSplit, SplitPatience
from datarun.log import TopicPartition
from datarun.log.memory import MemoryLog
from datarun.topics import DATA_REQUESTS
from services.projector.reaper import Reaper
from tests.histories import CATALOGUE, CONTEXT, dataset

SPLIT = PendingSplit(raw_data_id=1, attempt=1)


def asked_again(patience: SplitPatience, *, seconds: int, named: bool = False, silent: bool = False) -> list[int]:
    """Look once a second and return the seconds at which the split was asked for again."""
    times = []
    for second in range(seconds):
        sequence = 5 if silent else second
        by_runner = {"runner-1": (sequence, frozenset({1}))} if named else {}
        if patience.overdue([SPLIT], by_runner, now=float(second)):
            times.append(second)
    return times


def test_a_split_that_a_runner_names_is_left_to_it() -> None:
    """However long it takes, while its runner speaks."""
    assert asked_again(SplitPatience(), seconds=1000, named=True) == []


def test_a_split_nobody_names_is_asked_for_again_less_and_less_often() -> None:
    """It may wait in its queue, so asking gets rarer, and never stops."""
    times = asked_again(SplitPatience(), seconds=20_000)
    gaps = [after - before for before, after in zip([0, *times], times, strict=False)]
    assert gaps[:4] == [PATIENCE_SECONDS, 2 * PATIENCE_SECONDS, 4 * PATIENCE_SECONDS, 8 * PATIENCE_SECONDS]
    assert max(gaps) == LONGEST_PATIENCE_SECONDS


def test_the_last_word_of_a_silent_runner_counts_once() -> None:
    """A runner that died in a split is waited for one patience, not for ever."""
    assert asked_again(SplitPatience(), seconds=70, named=True, silent=True) == [PATIENCE_SECONDS]


def test_a_split_with_a_result_is_forgotten() -> None:
    """Another attempt of the same dataset begins with full patience."""
    patience = SplitPatience()
    assert patience.overdue([SPLIT], {}, now=0) == []
    again = PendingSplit(raw_data_id=1, attempt=2)
    assert patience.overdue([again], {}, now=PATIENCE_SECONDS) == []
    assert patience.overdue([again], {}, now=2 * PATIENCE_SECONDS) == [again]


class ReadModel:
    """A read model with one split that nobody holds."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def pending_splits(self) -> dict[PendingSplit, int]:
        """Return the split."""
        return {SPLIT: self.offset}

    def splitting(self) -> dict[str, tuple[int, frozenset[int]]]:
        """Return that nobody holds it."""
        return {}


def test_the_same_request_is_appended_again() -> None:
    """Same payload and id as the first, so that its result ends both."""
    log = MemoryLog(CATALOGUE)
    request = SplitRequested(
        raw_data_id=1,
        attempt=1,
        task_id="s",
        plan=StandardSplit(held_out_test=0.3, random_state=42),
        dataset=dataset(),
        requested_by="u",
    )
    first = encode(request, catalogue=CATALOGUE, context=CONTEXT)
    offset = log.append(first).result().offset
    now = [0.0]
    reaper = Reaper(log, catalogue=CATALOGUE, clock=lambda: now[0])
    read_model = ReadModel(offset)
    assert reaper.tick_splits(read_model) == []
    now[0] = PATIENCE_SECONDS + 1
    assert reaper.tick_splits(read_model) == [SPLIT]
    topic = CATALOGUE.full_name(DATA_REQUESTS)
    records = [record for batch in log.read({TopicPartition(topic, 0): 0}, until_end=True) for record in batch]
    assert [decode(record.value, record.headers) for record in records] == [request, request]
    assert len({dict(record.headers)["ce_id"] for record in records}) == 1
