"""The log read by a process of its own while this one folds: reading takes as long as all the rest of a replay."""

from __future__ import annotations

import gc
import marshal
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection

from datarun.crashes import crash_point
from datarun.errors import LogUnavailable
from datarun.log import StoredRecord

END_SECONDS = 10.0
"""After so long a reader that is not needed any more is killed."""
_END = b""

Read = Callable[[], Iterator[list[StoredRecord]]]
"""Opens what it reads; it is sent to the other process."""


@contextmanager
def read_ahead(read: Read) -> Iterator[Iterator[list[StoredRecord]]]:
    """Yield what `read` yields in another process, which ends with the block or soon after this one is killed.

    While the next is not asked for, the other waits: it holds one batch and the pipe's. What is yielded raises
    LogUnavailable, also when the other process is gone.
    """
    # Not forked: librdkafka's and psycopg2's threads and connections do not survive that.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    reader = context.Process(target=_send, args=(read, there), daemon=True)
    with closing(here):
        with closing(there):
            reader.start()
        try:
            yield _received(here)
        finally:
            here.close()
            reader.join(END_SECONDS)
            reader.kill()
            reader.join()


def _received(here: Connection) -> Iterator[list[StoredRecord]]:
    while True:
        try:
            told = here.recv_bytes()
        except EOFError as error:
            raise LogUnavailable("the process that reads the log is gone") from error
        if told == _END:
            return
        records = marshal.loads(told)  # noqa: S302 - from a process of this program
        if isinstance(records, str):
            raise LogUnavailable(records)
        yield list(map(StoredRecord._make, records))


def _send(read: Read, there: Connection) -> None:
    # An interrupt is for who started the rebuild; this one ends when nobody reads from it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    try:
        for records in read():
            # Also when there are none: that somebody still listens shows by sending alone.
            there.send_bytes(marshal.dumps(list(map(tuple, records))))
            crash_point("rebuild.read")
        there.send_bytes(_END)
    except BrokenPipeError:
        return
    except LogUnavailable as error:
        there.send_bytes(marshal.dumps(str(error)))
