"""Every kind of record that can never be applied or run, as a producer writes it that knows no rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from confluent_kafka import Message
from confluent_kafka import Producer as KafkaProducer

from datarun.blobs import LocalBlobs
from datarun.dead_letters.letters import GATEWAY, PROJECTOR, RUNNER
from datarun.envelope import MAX_VALUE_BYTES, encode
from datarun.events import (
    Blob,
    CustomSplit,
    DataUploaded,
    Event,
    FoldRequested,
    FoldTested,
    Priority,
    SplitRequested,
)
from datarun.log import Position, Record
from datarun.log.kafka import producer_config
from datarun.partitioner import partition_of
from datarun.published.examples import EXAMPLES
from datarun.signatures import SIGNATURE
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, Catalogue
from tests.projecting import CONTEXT

ACKNOWLEDGED_SECONDS = 30
ANY_PARTITION = -1


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A record that becomes a dead letter, why, and who finds so."""

    name: str
    reason: str
    record: Record
    found_by: tuple[str, ...]
    partition: int = ANY_PARTITION


class Stranger:
    """Writes anything anywhere."""

    def __init__(self, kafka: str) -> None:
        self._producer = KafkaProducer({**producer_config(kafka), "message.max.bytes": 1_040_000, "linger.ms": 0})

    def append(self, record: Record, *, partition: int = ANY_PARTITION) -> Position:
        """Return where a record is once it is acknowledged."""
        places: list[Message] = []

        def told(error: object, message: Message) -> None:
            assert error is None, error
            places.append(message)

        headers = list(record.headers)
        options = {} if partition == ANY_PARTITION else {"partition": partition}
        # An empty value stands for none.
        self._producer.produce(
            record.topic, key=record.key, value=record.value or None, headers=headers, on_delivery=told, **options
        )
        assert self._producer.flush(ACKNOWLEDGED_SECONDS) == 0
        [message] = places
        return Position(str(message.topic()), message.partition() or 0, message.offset() or 0)


@dataclass(frozen=True, slots=True)
class Known:
    """What an installation has: a fold that a gateway accepted and that was tested, and a dataset without a split."""

    catalogue: Catalogue
    blobs: LocalBlobs
    accepted: FoldRequested
    unsplit: int


def spoiled(known: Known, number: int) -> Iterator[Spoiled]:
    """Yield one of each kind; numbers from this one on make folds and submissions that nobody else has."""
    request = fold(known, number)
    signed = _encoded(known, request)
    yield from _in_the_queue(known, signed, number)
    yield from _among_the_results(known, number)
    yield from _about_data(known, number)
    gone = Blob(sha256=f"{number:064x}", size=3)
    yield _of_runner("a fold whose file is missing", "blob_missing", known, _with_file(request, gone))
    altered = known.blobs.put(f"# altered {number}\n".encode())
    known.blobs.path(altered).write_bytes(b"something else")
    yield _of_runner("a fold whose file was altered", "blob_mismatch", known, _with_file(request, altered, step=1))
    second = known.accepted.model_copy(update={"task_id": f"another {number}", "requested_by": "stranger"})
    yield Spoiled("a fold that is another's", "claimed", _encoded(known, second), (GATEWAY,))


def fold(known: Known, number: int) -> FoldRequested:
    """Return the request of a fold that runs."""
    return known.accepted.model_copy(
        update={
            "fold_id": number,
            "submission_id": number,
            "submission_version": 1,
            "attempt": 1,
            "priority": Priority.HIGH,
            "task_id": f"task {number}",
            "requested_by": "stranger",
        }
    )


def _in_the_queue(known: Known, signed: Record, number: int) -> Iterator[Spoiled]:
    both = (PROJECTOR, RUNNER)
    low = replace(signed, topic=known.catalogue.full_name(FOLD_REQUESTS_LOW))
    yield Spoiled("a request that is no JSON", "undecodable", replace(signed, value=b"\xff no json"), both)
    yield Spoiled("a request of no known type", "unknown_type", _typed(signed, "datarun.FoldSold.v1"), both)
    yield Spoiled("a request that is too new", "unknown_version", _typed(signed, "datarun.FoldRequested.v9"), both)
    told = b'"fold_id":%d' % number
    wrong = replace(signed, value=signed.value.replace(told, b'"fold_id":"%d"' % number))
    yield Spoiled("a request with a wrong field", "schema", wrong, both)
    long = replace(signed, value=signed.value + b" " * (MAX_VALUE_BYTES + 1 - len(signed.value)))
    yield Spoiled("a request that is too large", "too_large", long, both)
    yield Spoiled("a request under another key", "misrouted", _signed(known, replace(signed, key=b"1")), both)
    yield Spoiled("a request in the other queue", "misrouted", low, both)
    yield Spoiled("a request that nobody signed", "forged", _unsigned(signed), both)


def _among_the_results(known: Known, number: int) -> Iterator[Spoiled]:
    result = _encoded(known, EXAMPLES[FoldTested].model_copy(update={"fold_id": number}))
    home = partition_of(result.key, FOLD_EVENTS.partitions)
    one = (PROJECTOR,)
    yield Spoiled("a result without a value", "undecodable", replace(result, value=b""), one)
    yield Spoiled("a result that is too new", "unknown_version", _typed(result, "datarun.FoldTested.v9"), one)
    yield Spoiled("a result in another partition", "misrouted", result, one, (home + 1) % FOLD_EVENTS.partitions)
    yield Spoiled("a result that nobody signed", "forged", _unsigned(result), one)
    queued = replace(result, topic=known.catalogue.full_name(FOLD_REQUESTS_HIGH))
    yield Spoiled("a result among the requests", "misrouted", queued, (PROJECTOR, RUNNER))


def _about_data(known: Known, number: int) -> Iterator[Spoiled]:
    upload = _encoded(known, EXAMPLES[DataUploaded].model_copy(update={"raw_data_id": number, "name": f"d{number}"}))
    assert upload.topic == known.catalogue.full_name(DATA_EVENTS)
    yield Spoiled("an upload with a wrong field", "schema", replace(upload, value=b'{"raw_data_id": 1}'), (PROJECTOR,))
    mine = known.accepted.dataset.model_copy(update={"split": None})
    gone = mine.files[0].model_copy(update={"blob": Blob(sha256=f"{number:064x}", size=3)})
    asked = SplitRequested(
        raw_data_id=known.unsplit,
        attempt=1,
        task_id=f"task {number}",
        plan=CustomSplit(),
        dataset=mine.model_copy(update={"raw_data_id": known.unsplit, "files": (gone,)}),
        requested_by="stranger",
    )
    split = _encoded(known, asked)
    assert split.topic == known.catalogue.full_name(DATA_REQUESTS)
    yield Spoiled("a split that is no JSON", "undecodable", replace(split, value=b"{"), (PROJECTOR, RUNNER))
    yield Spoiled("a split whose file is missing", "blob_missing", split, (RUNNER,))
    whole = mine.model_copy(update={"raw_data_id": number})
    nobodys = asked.model_copy(update={"raw_data_id": number, "dataset": whole})
    yield Spoiled("a split of nobody's dataset", "unknown_dataset", _encoded(known, nobodys), (GATEWAY,))


def _of_runner(name: str, reason: str, known: Known, request: FoldRequested) -> Spoiled:
    return Spoiled(name, reason, _encoded(known, request), (RUNNER,))


def _with_file(request: FoldRequested, blob: Blob, *, step: int = 0) -> FoldRequested:
    files = tuple(file.model_copy(update={"blob": blob}) for file in request.files)
    number = request.fold_id + 1 + step
    return request.model_copy(
        update={"fold_id": number, "submission_id": number, "files": files, "task_id": f"task {number}"}
    )


def _encoded(known: Known, event: Event) -> Record:
    return encode(event, catalogue=known.catalogue, context=CONTEXT)


def _signed(known: Known, record: Record) -> Record:
    return record if known.catalogue.signatures is None else known.catalogue.signatures.signed(record)


def _unsigned(record: Record) -> Record:
    return replace(record, headers=tuple(pair for pair in record.headers if pair[0] != SIGNATURE))


def _typed(record: Record, name: str) -> Record:
    return replace(record, headers=tuple({**dict(record.headers), "ce_type": name.encode()}.items()))
