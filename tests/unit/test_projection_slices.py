"""Slices of a log lead from its beginning to its end without a gap, whatever its times say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from datarun.log import EventLog, TopicPartition
from datarun.projection.slices import slices

NOW = 1_767_225_600_000
PARTITIONS = [TopicPartition("t", number) for number in range(3)]


class Timed:
    """A log of which only the times are known."""

    def __init__(self, times: Mapping[TopicPartition, list[int]]) -> None:
        self._times = times

    def offsets_at(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int]:
        """Return each partition's first offset that is not older than a moment, or its end."""
        return {
            tp: next((at for at, time in enumerate(self._times[tp]) if time >= timestamp_ms), len(self._times[tp]))
            for tp in partitions
        }


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 30), st.booleans())
def test_slices_cover_a_log_once(data: st.DataObject, size: int, is_in_order: bool) -> None:  # noqa: FBT001
    """Also when many records have one time, or a producer's clock went back."""
    span = data.draw(st.sampled_from((1, 5, 10_000)))
    times = {tp: data.draw(st.lists(st.integers(NOW, NOW + span), max_size=60)) for tp in PARTITIONS}
    if is_in_order:
        times = {tp: sorted(one) for tp, one in times.items()}
    until = {tp: len(one) for tp, one in times.items()}
    found = list(slices(cast("EventLog", Timed(times)), dict.fromkeys(until, 0), until, records=size))
    assert [first for first, _ in found[:1]] == [dict.fromkeys(until, 0)] * bool(found)
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(start != end and all(start[tp] <= end[tp] for tp in start) for start, end in found)
    assert (found[-1][1] if found else dict.fromkeys(until, 0)) == until
    assert all(sum(end.values()) - sum(start.values()) <= max(1.3, len(until)) * size for start, end in found)


def test_a_slice_is_as_large_as_asked_and_of_one_time() -> None:
    """Partitions of unequal length are cut at the same moments."""
    times = {PARTITIONS[0]: [NOW + 10 * n for n in range(1000)], PARTITIONS[1]: [NOW + 100 * n for n in range(100)]}
    until = {tp: len(one) for tp, one in times.items()}
    found = list(slices(cast("EventLog", Timed(times)), dict.fromkeys(until, 0), until, records=100))
    assert 8 <= len(found) <= 16
    for _, end in found[:-1]:
        left, right = (times[tp][end[tp] - 1] for tp in times)
        assert abs(left - right) <= 100
