"""One suite for every event log and work queue: the real Kafka, and the memory that unit tests use."""

import threading
import time
from contextlib import closing
from functools import partial
from itertools import chain, islice

import pytest

from datarun.log import REQUEUED, Record, TopicPartition
from datarun.log.memory import MemoryLog, MemoryWorkQueue, QueueState
from datarun.partitioner import partition_of
from datarun.topics import DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue

SECONDS = 20
QUEUES = [("H", FOLD_REQUESTS_HIGH), ("L", FOLD_REQUESTS_LOW)]


class MemorySystem:
    """A log and its queues in memory."""

    def __init__(self):
        self.catalogue = Catalogue("t.")
        self.log = MemoryLog(self.catalogue)
        self._state = QueueState()

    def queue(self, queues=QUEUES):
        return MemoryWorkQueue(self.log, queues, catalogue=self.catalogue, state=self._state)

    def append_batch(self, topic, values):
        for value in values:
            append(self, topic, value, value)

    def close(self):
        self.log.close()


class KafkaSystem:
    """A log and its queues on the session's broker, under a fresh prefix."""

    def __init__(self, bootstrap, prefix):
        from datarun.log.admin import create_topics
        from datarun.log.kafka import KafkaLog

        create_topics(bootstrap, prefix=prefix)
        self.bootstrap = bootstrap
        self.catalogue = Catalogue(prefix)
        self.log = KafkaLog(bootstrap)

    def queue(self, queues=QUEUES):
        from datarun.log.queue import KafkaWorkQueue

        return KafkaWorkQueue(self.bootstrap, queues, catalogue=self.catalogue, event_log=self.log)

    def append_batch(self, topic, values):
        """Append records as producers do that know nothing of share groups: all in one batch."""
        from confluent_kafka import Producer

        from datarun.log.kafka import producer_config

        producer = Producer({**producer_config(self.bootstrap), "linger.ms": 1000})
        for value in values:
            producer.produce(self.catalogue.full_name(topic), key=value, value=value, headers={"ce_type": b"x"})
        assert producer.flush(SECONDS) == 0

    def close(self):
        from datarun.log.admin import delete_topics

        self.log.close()
        delete_topics(self.bootstrap, prefix=self.catalogue.prefix)


@pytest.fixture(params=["memory", "kafka"])
def system(request):
    """Return each implementation in turn."""
    if request.param == "memory":
        made = MemorySystem()
    else:
        made = KafkaSystem(request.getfixturevalue("kafka"), request.getfixturevalue("topic_prefix"))
    yield made
    made.close()


def append(system, topic, key, value, *, single=False):
    """Append one record and return its position."""
    record = Record(system.catalogue.full_name(topic), key, value, (("ce_type", b"x"),), single=single)
    return system.log.append(record).result(SECONDS)


def read_all(system, topic):
    """Return every record of a topic."""
    ends = system.log.end_offsets([system.catalogue.full_name(topic)])
    return list(chain.from_iterable(system.log.read(dict.fromkeys(ends, 0), until_end=True)))


def take(queue, seconds=SECONDS, order=None):
    """Return the next work, waiting for it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        work = queue.take(order)
        if work is not None:
            return work
    return None


def at_once(works, seconds=120):
    """Do works in a thread each, and wait for all."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)


def test_a_record_comes_back_where_its_position_says(system):
    """Key, value, headers and position survive."""
    position = append(system, FOLD_EVENTS, b"7", b"value")
    (record,) = read_all(system, FOLD_EVENTS)
    assert (record.key, record.value, list(record.headers)) == (b"7", b"value", [("ce_type", b"x")])
    assert record.position == position
    assert abs(record.timestamp_ms / 1000 - time.time()) < 300


def test_records_of_one_key_stay_in_order(system):
    """Everything about one fold is one ordered sequence."""
    for number in range(200):
        append(system, FOLD_EVENTS, str(number % 7).encode(), str(number).encode())
    records = read_all(system, FOLD_EVENTS)
    assert len(records) == 200
    for key in range(7):
        mine = [record for record in records if record.key == str(key).encode()]
        assert [int(record.value) for record in mine] == list(range(key, 200, 7))
        assert len({record.partition for record in mine}) == 1


def test_end_offsets_count_what_was_appended(system):
    """The next offset of every partition is known, also of the empty ones."""
    append(system, FOLD_EVENTS, b"1", b"a")
    ends = system.log.end_offsets([system.catalogue.full_name(FOLD_EVENTS)])
    assert len(ends) == FOLD_EVENTS.partitions
    assert sum(ends.values()) == 1


def test_offsets_at_a_moment_are_those_of_the_first_records_that_are_not_older(system):
    """Whoever reads up to them has seen what was there at that moment, and nothing else."""
    topic = system.catalogue.full_name(FOLD_EVENTS)
    for number in range(20):
        append(system, FOLD_EVENTS, str(number).encode(), b"early")
    time.sleep(0.02)
    moment = int(time.time() * 1000)
    time.sleep(0.02)
    between = system.log.end_offsets([topic])
    for number in range(5):
        append(system, FOLD_EVENTS, str(number).encode(), b"late")
    assert system.log.offsets_at(between, moment) == between
    assert system.log.offsets_at(between, 0) == dict.fromkeys(between, 0)
    assert system.log.offsets_at(between, moment + 60_000) == system.log.end_offsets([topic])


def test_reading_starts_where_it_is_told(system):
    """An offset skips what lies before it."""
    for number in range(5):
        append(system, DATA_REQUESTS, b"k", str(number).encode(), single=True)
    start = {TopicPartition(system.catalogue.full_name(DATA_REQUESTS), 0): 3}
    values = [record.value for batch in system.log.read(start, until_end=True) for record in batch]
    assert values == [b"3", b"4"]


def test_an_offset_is_found_by_its_time(system):
    """All are younger than long ago, none is as young as tomorrow, and a record is as old as itself."""
    position = append(system, FOLD_EVENTS, b"7", b"value")
    append(system, FOLD_EVENTS, b"7", b"another")
    tp = TopicPartition(position.topic, position.partition)
    records = [record for batch in system.log.read({tp: position.offset}, until_end=True) for record in batch]
    first, second = records
    assert system.log.offsets_at([tp], 0) == {tp: position.offset}
    assert system.log.offsets_at([tp], second.timestamp_ms + 1) == {tp: position.offset + 2}
    assert system.log.offsets_at([tp], int(time.time() * 1000) + 86_400_000) == {tp: position.offset + 2}
    assert system.log.offsets_at([tp], first.timestamp_ms) == {tp: position.offset}


def test_keys_are_where_they_are_said_to_be(system):
    """On Kafka the partition of a key is the one that is computed here."""
    for key in (b"7", b"12", b"123", b"1234", b"12345", b"2147483647"):
        position = append(system, FOLD_EVENTS, key, b"value")
        if isinstance(system, KafkaSystem):
            assert position.partition == partition_of(key, FOLD_EVENTS.partitions)


def test_reading_follows_what_is_appended_later(system):
    """Without an end the reader waits, yields nothing meanwhile, and sees the next record."""
    start = {TopicPartition(system.catalogue.full_name(DATA_REQUESTS), 0): 0}
    batches = system.log.read(start, idle_seconds=0.05)
    assert next(batches) == []
    append(system, DATA_REQUESTS, b"k", b"later", single=True)
    seen = next(record for batch in islice(batches, 400) for record in batch)
    assert seen.value == b"later"
    batches.close()


def test_who_follows_from_far_behind_comes_to_what_is_new(system):
    """Of a long past and what comes meanwhile everything is seen once, in order."""
    topic = system.catalogue.full_name(FOLD_EVENTS)

    def send(numbers):
        keys = [(str(number % 50).encode(), str(number).encode()) for number in numbers]
        sent = [system.log.append(Record(topic, key, value, (("ce_type", b"x"),))) for key, value in keys]
        return [one.result(SECONDS) for one in sent]

    send(range(3_000))
    seen, is_sent = [], False
    with closing(system.log.read(dict.fromkeys(system.log.end_offsets([topic]), 0), idle_seconds=0.05)) as batches:
        for batch in islice(batches, 400):
            seen += [(record.key, int(record.value)) for record in batch]
            if seen and not is_sent:
                send(range(3_000, 3_100))
                is_sent = True
            if len(seen) >= 3_100:
                break
    assert sorted(number for _, number in seen) == list(range(3_100))
    for key in {key for key, _ in seen}:
        numbers = [number for one, number in seen if one == key]
        assert numbers == sorted(numbers)


def test_work_is_taken_once_and_in_order(system):
    """Two consumers share a queue without taking anything twice."""
    for number in range(10):
        append(system, FOLD_REQUESTS_LOW, str(number).encode(), str(number).encode(), single=True)
    queues = [system.queue(), system.queue()]
    seen = []
    for index in range(10):
        queue = queues[index % 2]
        work = take(queue)
        queue.accept(work)
        seen.append(int(work.record.value))
    assert sorted(seen) == list(range(10))
    for queue in queues:
        queue.close()


def test_the_first_queue_is_asked_first(system):
    """High goes before low, whenever it came."""
    queue = system.queue()
    append(system, FOLD_REQUESTS_LOW, b"1", b"warm", single=True)
    append(system, FOLD_REQUESTS_HIGH, b"2", b"warm", single=True)
    for _ in range(2):
        queue.accept(take(queue))
    append(system, FOLD_REQUESTS_LOW, b"3", b"low", single=True)
    append(system, FOLD_REQUESTS_HIGH, b"4", b"high", single=True)
    time.sleep(0.3)
    works = []
    for _ in range(2):
        works.append(take(queue))
        queue.accept(works[-1])
    queue.close()
    assert {work.queue for work in works} == {"H", "L"}


def test_who_takes_says_which_queues_are_asked_and_in_which_order(system):
    """The order decides, not the queues' own; a queue that is not named is left alone."""
    queue = system.queue()
    append(system, FOLD_REQUESTS_LOW, b"1", b"warm", single=True)
    append(system, FOLD_REQUESTS_HIGH, b"2", b"warm", single=True)
    for _ in range(2):
        queue.accept(take(queue))
    assert take(queue, 0.5) is None
    append(system, FOLD_REQUESTS_LOW, b"3", b"low", single=True)
    append(system, FOLD_REQUESTS_HIGH, b"4", b"high", single=True)
    time.sleep(0.3)
    low = take(queue, order=("L", "H"))
    assert low.record.value == b"low"
    queue.accept(low)
    assert take(queue, 1, order=("L",)) is None
    high = take(queue, order=("L", "H"))
    assert high.record.value == b"high"
    queue.accept(high)
    queue.close()


def test_a_batch_of_many_is_worked_off_by_many_and_nothing_of_it_is_lost(system):
    """Three consumers give each of sixty records back more often than Kafka allows; each is accepted once."""
    values = [b"%d" % number for number in range(60)]
    system.append_batch(FOLD_REQUESTS_LOW, values)
    releases = {value: iter(range(12)) for value in values}
    accepted = []

    def work(queue):
        while len(accepted) < len(values):
            got = take(queue, 1)
            if got is not None and next(releases[got.record.value], None) is not None:
                queue.release(got)
            elif got is not None:
                queue.accept(got)
                accepted.append(got.record.value)

    queues = [system.queue() for _ in range(3)]
    at_once([partial(work, queue) for queue in queues])
    assert sorted(accepted) == sorted(values)
    assert take(queues[0], 1) is None
    for queue in queues:
        queue.close()


def test_released_work_is_taken_again(system):
    """What one consumer gives back another gets, with its delivery counted."""
    append(system, FOLD_REQUESTS_HIGH, b"1", b"again", single=True)
    first, second = system.queue(), system.queue()
    work = take(first)
    first.release(work)
    again = take(second)
    assert (again.record.value, again.delivery_count) == (b"again", work.delivery_count + 1)
    second.accept(again)
    first.close()
    second.close()


def test_work_released_without_end_is_never_lost(system):
    """Kafka archives a record at the delivery limit; ours comes round for ever, and says that it does."""
    append(system, FOLD_REQUESTS_HIGH, b"1", b"restless", single=True)
    queue = system.queue()
    for number in range(25):
        work = take(queue)
        assert work is not None
        assert work.record.value == b"restless"
        is_again = work.delivery_count > 1 or REQUEUED in dict(work.record.headers)
        assert is_again == (number > 0)
        queue.release(work)
    queue.accept(take(queue))
    queue.close()


def test_work_of_a_consumer_that_leaves_goes_to_the_next(system):
    """Closing gives back what was neither accepted nor released."""
    append(system, FOLD_REQUESTS_HIGH, b"1", b"held", single=True)
    first = system.queue()
    assert take(first).record.value == b"held"
    first.close()
    second = system.queue()
    work = take(second)
    assert work.record.value == b"held"
    second.accept(work)
    second.close()


def test_a_full_consumer_that_drains_holds_nothing(system):
    """What an open fetch of a consumer without a free slot has locked is soon another's."""
    first, second = system.queue(), system.queue()
    append(system, FOLD_REQUESTS_HIGH, b"0", b"warm", single=True)
    first.accept(take(first))
    assert first.take() is None
    append(system, FOLD_REQUESTS_HIGH, b"1", b"next", single=True)
    started = time.monotonic()
    work = None
    while work is None and time.monotonic() - started < SECONDS:
        for locked in first.drain():
            first.release(locked)
        work = second.take()
    assert time.monotonic() - started < 10  # a locked record would come after 15 s
    second.accept(work)
    first.close()
    second.close()


def test_many_appenders_lose_nothing(system):
    """Threads that append at once all get their own position."""
    positions = []

    def work(thread):
        positions.extend(append(system, FOLD_EVENTS, f"{thread}".encode(), b"v") for _ in range(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(positions)) == 200
    assert len(read_all(system, FOLD_EVENTS)) == 200


def test_a_key_lies_where_the_partitioner_says(system):
    """Whoever computes a key's partition comes to the one that holds its records."""
    for key in (b"", b"1", b"12", b"123", b"1234", b"12345678", b"runner-\xc3\xa9-1"):
        position = append(system, FOLD_EVENTS, key, b"{}")
        assert position.partition == partition_of(key, FOLD_EVENTS.partitions)


def test_the_first_offsets_are_known(system):
    """Nothing is forgotten, so a log begins at 0, everywhere."""
    topic = system.catalogue.full_name(FOLD_EVENTS)
    append(system, FOLD_EVENTS, b"1", b"{}")
    assert system.log.start_offsets([topic]) == {TopicPartition(topic, n): 0 for n in range(FOLD_EVENTS.partitions)}
