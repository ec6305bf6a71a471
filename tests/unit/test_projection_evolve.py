"""The projection as a pure function: what wins, and that nothing depends on how the log was read."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarun.events import (
    EVENT_TYPES,
    Event,
    FoldFailed,
    FoldFenced,
    FoldLost,
    FoldReproduced,
    FoldStarted,
    FoldTested,
    FoldTrained,
    PackageFailed,
    PackageInstalled,
    PackageRequested,
    PredictionsFetched,
)
from datarun.lifecycle import Rank
from datarun.log import StoredRecord
from datarun.projection.batch import Batch, fold
from datarun.projection.evolve import TAKERS, Projected, Registers, evolve
from datarun.projection.offsets import Gap, Offsets, unseen
from datarun.topics import PROJECTED
from tests.histories import (
    CATALOGUE,
    NEIGHBOURS,
    Log,
    Tables,
    heartbeat,
    logs,
    partition_of,
    requested,
    run_event,
    tables,
)


def _read(batches: list[list[StoredRecord]]) -> Batch:
    """Do what the projector does: skip what is known, fold each batch by itself, bring the results together."""
    whole, offsets = Batch(), Offsets()
    for records in batches:
        for record in records:
            offsets.setdefault(partition_of(record), 0)
        part = fold(unseen(records, offsets, catalogue=CATALOGUE), catalogue=CATALOGUE)
        whole.dead += part.dead
        _merge(whole.registers, part.registers)
    return whole


def _merge(into: Registers, part: Registers) -> None:
    for name in Registers.__slots__:
        for kept in getattr(part, name).values():
            evolve(into, cast("Projected", kept.event), kept.record)


@settings(max_examples=300, deadline=None)
@given(logs(), st.integers(0, 2**32))
def test_any_reading_of_a_log_gives_the_same_rows(log: Log, seed: int) -> None:
    """Interleaving, redelivery and the cutting of batches leave no trace in the rows."""
    assert tables(_read(log.reading(seed))) == tables(fold(log, catalogue=CATALOGUE))


@settings(max_examples=50, deadline=None)
@given(logs(), st.integers(0, 2**32))
def test_events_of_old_versions_give_the_same_rows(log: Log, seed: int) -> None:
    """Who wrote a split request, and when, shows nowhere."""
    assert _but_letters(_read(log.in_first_versions().reading(seed))) == _but_letters(fold(log, catalogue=CATALOGUE))


def _but_letters(batch: Batch) -> Tables:
    # A dead letter keeps the bytes that were refused.
    return tables(batch) | {"dead_letter": {}}


def test_every_event_is_projected() -> None:
    """Nobody declares an event that the read model ignores without noticing; fences and packages are for runners."""
    assert set(TAKERS) == {carried for topic in PROJECTED for carried in topic.carries}
    assert set(EVENT_TYPES) - set(TAKERS) == {FoldFenced, PackageRequested, PackageInstalled, PackageFailed}


def _row(*events: Event) -> dict[str, object]:
    log = Log()
    for event in events:
        log.append(event)
    return tables(fold(log, catalogue=CATALOGUE))["fold"][7]


def test_the_first_terminal_of_an_attempt_wins_whatever_its_delivery() -> None:
    """A zombie's later result changes nothing, and neither does a later delivery's."""
    row = _row(
        run_event(FoldTested, 7, delivery=2, mark=5),
        run_event(FoldFailed, 7, delivery=1),
        run_event(FoldTested, 7, delivery=3),
    )
    assert (row["run_rank"], row["run_delivery"], row["runner_id"]) == (Rank.TESTED, 2, "runner-5")


def test_a_newer_attempt_replaces_a_terminal_one() -> None:
    """Force runs a fold again: the old result leaves no column behind."""
    row = _row(run_event(FoldTested, 7), run_event(FoldStarted, 7, attempt=2, mark=3))
    assert (row["run_attempt"], row["run_rank"], row["test_predictions"], row["log"]) == (2, Rank.STARTED, None, None)


def test_a_started_second_delivery_replaces_the_trained_first() -> None:
    """What a lost runner had trained is not shown as the new runner's."""
    row = _row(run_event(FoldTrained, 7, mark=4), run_event(FoldStarted, 7, delivery=2, mark=6))
    assert (row["runner_id"], row["run_delivery"], row["full_train_predictions"]) == ("runner-6", 2, None)


def test_a_lost_delivery_is_lost_until_the_next_one_starts() -> None:
    """A zombie that trains after its loss does not come back to life, but its result would count."""
    lost = _row(run_event(FoldStarted, 7), run_event(FoldLost, 7), run_event(FoldTrained, 7))
    assert lost["run_rank"] == Rank.LOST
    tested = _row(run_event(FoldLost, 7), run_event(FoldTested, 7))
    assert tested["run_rank"] == Rank.TESTED


def test_a_fold_run_again_to_be_verified_stays_as_it_is() -> None:
    """Whether it was reproduced is in the log; its row says what happened to the fold itself."""
    tested = run_event(FoldTested, 7, mark=4)
    assert _row(tested, run_event(FoldReproduced, 7, attempt=2, mark=5)) == _row(tested)


def test_the_request_of_the_highest_attempt_and_delivery_is_kept() -> None:
    """Appended twice, it waits in its queue where it was last appended."""
    log = Log()
    for event in (requested(7, delivery=2), requested(7, delivery=2), requested(7, delivery=1)):
        log.append(event)
    row = tables(fold(log, catalogue=CATALOGUE))["fold"][7]
    assert (row["request_delivery"], row["request_offset"]) == (2, 1)


def test_a_result_seen_before_its_request_makes_the_row() -> None:
    """Requests and results are in different topics, so either may come first."""
    row = _row(run_event(FoldTested, 7))
    assert (row["submission_id"], row["raw_data_id"], row["request_attempt"]) == (2, 1, 0)


def test_a_fetch_counts_for_its_attempt_and_those_before() -> None:
    """Whether predictions are new is derived, so fetches commute with results."""
    fetch = PredictionsFetched(fold_id=7, attempt=2, fetch_id="a", fetched_by="b")
    assert _row(fetch, run_event(FoldTested, 7))["fetched_attempt"] == 2


def test_the_newest_heartbeat_is_kept() -> None:
    """The sequence orders a runner's heartbeats, not their arrival."""
    log = Log()
    for sequence in (3, 5, 4):
        log.append(heartbeat("runner-1", sequence))
    assert tables(fold(log, catalogue=CATALOGUE))["runner"]["runner-1"]["sequence"] == 5


def test_a_record_that_cannot_be_decoded_becomes_a_dead_letter() -> None:
    """It says why, keeps the bytes, and the records after it are applied."""
    log = Log()
    log.append(run_event(FoldTested, 7), value=b"{\xff")
    log.append(run_event(FoldTested, 7, mark=2))
    batch = fold(log, catalogue=CATALOGUE)
    assert [(row["reason"], row["value"]) for row in batch.dead] == [("undecodable", r"\x7bff")]
    assert tables(batch)["fold"][7]["runner_id"] == "runner-2"


def test_a_gap_is_refused() -> None:
    """Records that nobody saw are not skipped silently."""
    log = Log()
    records = [log.append(run_event(FoldStarted, number)) for number in NEIGHBOURS]
    with pytest.raises(Gap, match="expected offset 1, got 2"):
        unseen([records[0], records[2]], {partition_of(records[0]): 0}, catalogue=CATALOGUE)


def test_a_compacted_topic_may_jump() -> None:
    """Compaction takes heartbeats away, so their offsets have holes."""
    log = Log()
    records = [log.append(heartbeat("runner-1", number)) for number in (1, 2, 3)]
    assert unseen(records[2:], {partition_of(records[0]): 0}, catalogue=CATALOGUE) == records[2:]
