"""The process that reads the log for a rebuild: what it reads arrives as it is, and nobody outlives the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from datarun.errors import LogUnavailable
from datarun.log import StoredRecord
from datarun.projection.ahead import read_ahead
from tests.made_up_logs import RECORDS, away, dying, endless, some
from tests.projecting import wait_until

GONE_SECONDS = 30


def test_what_is_read_arrives_as_it_is() -> None:
    """Batch by batch, with what is not there as nothing."""
    with read_ahead(some) as batches:
        read = list(batches)
    assert read == [RECORDS, [], RECORDS[1:]]
    assert all(isinstance(record, StoredRecord) for batch in read for record in batch)


def test_a_log_that_does_not_answer_is_said_to_be_away() -> None:
    """With what came before it and in its own words."""
    with read_ahead(away) as batches:
        assert next(batches) == RECORDS
        with pytest.raises(LogUnavailable, match="nobody answers"):
            next(batches)


def test_a_reader_that_is_killed_is_noticed() -> None:
    """Its end is no end of the log."""
    with read_ahead(dying) as batches:
        assert next(batches) == RECORDS
        with pytest.raises(LogUnavailable, match="gone"):
            next(batches)


def test_a_reader_that_is_not_needed_any_more_ends() -> None:
    """Who leaves early leaves nobody behind."""
    with read_ahead(endless) as batches:
        [record] = next(batches)
        assert psutil.pid_exists(record.partition)
    assert not psutil.pid_exists(record.partition)


_KILLED = """
import time
from datarun.projection.ahead import read_ahead
from tests.made_up_logs import endless
with read_ahead(endless) as batches:
    print(next(batches)[0].partition, flush=True)
    time.sleep(600)
"""


def test_a_reader_does_not_outlive_who_was_killed() -> None:
    """After kill -9 nobody reads from it, and it notices."""
    command = [sys.executable, "-c", _KILLED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    reader = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait(10)
    wait_until(lambda: not reader.is_running() or reader.status() == psutil.STATUS_ZOMBIE, GONE_SECONDS)
