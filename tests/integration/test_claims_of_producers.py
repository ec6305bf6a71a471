"""What producers write into the log beside the gateways is taken for HTTP too, and who comes second is told so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import Producer as KafkaProducer
from typer.testing import CliRunner

from datarun.blobs import LocalBlobs
from datarun.cli import app
from datarun.db import connect
from datarun.dead_letters.ledger import read_letters
from datarun.dead_letters.letters import GATEWAY, DeadLetter
from datarun.envelope import Context, encode, now
from datarun.events import Dataset, FoldRequested, Split
from datarun.intake.following import FOLLOWED
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog, producer_config
from datarun.producer import Fold, Producer, Upload
from datarun.published.examples import EXAMPLES
from datarun.topics import DEAD_LETTERS, Catalogue
from services.ingest.following import FOLLOWER_LOCK
from tests.gateways import (
    USER,
    Gateway,
    fold_body,
    packed,
    pretend_projected,
    query,
    read_events,
    running_gateway,
    wait_until,
)
from tests.late_broker import LateBroker
from tests.worlds import claims_of

CLASSIFIER = b"class Classifier: ...\n"
FILES = {"classifier.py": CLASSIFIER}
NUMBER = 1_000_000_001
FOREIGN = Context("databoard", now())


@dataclass
class Place:
    """A log, blobs and a database, for gateways and for a producer."""

    log: KafkaLog
    kafka: str
    catalogue: Catalogue
    postgres_url: str
    blobs_url: str
    folder: Path

    def gateway(self, postgres_url: str | None = None, **options: str) -> AbstractContextManager[Gateway]:
        """Run a gateway."""
        servers = {"kafka": self.kafka, "postgres_url": postgres_url or self.postgres_url, "blobs_url": self.blobs_url}
        return running_gateway(self.folder / "gateway", **(servers | options), prefix=self.catalogue.prefix)

    @property
    def producer(self) -> Producer:
        """Return a client that writes to the log itself."""
        blobs = LocalBlobs(Path(self.blobs_url.removeprefix("file://")))
        return Producer(self.log, blobs, catalogue=self.catalogue, name="databoard")

    def followed(self) -> bool:
        """Tell whether claims were read to the log's end."""
        ends = self.log.end_offsets([self.catalogue.full_name(topic) for topic in FOLLOWED])
        rows = query(self.postgres_url, "select topic, partition, next_offset from intake.claim_offset")
        known = {(topic, partition): offset for topic, partition, offset in rows}
        return all(known.get(tuple(tp), 0) == end for tp, end in ends.items())

    def letters(self) -> list[DeadLetter]:
        """Return what was refused."""
        return read_letters(self.log, None, catalogue=self.catalogue)

    def rebuilt(self, postgres_url: str) -> dict[str, Any]:
        """Return the claims that the log alone makes of a database."""
        options = ["--kafka", self.kafka, "--postgres", postgres_url, "--dir", str(self.folder)]
        done = CliRunner().invoke(app, ["intake", "rebuild", *options, "--topic-prefix", self.catalogue.prefix])
        assert done.exit_code == 0, done.output
        return claims_of(postgres_url)


@pytest.fixture
def place(kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path) -> Iterator[Place]:
    """Make topics and let nobody wait for a projector."""
    create_topics(kafka, prefix=topic_prefix)
    pretend_projected(postgres_url, topic_prefix)
    with closing(KafkaLog(kafka)) as log:
        yield Place(log, kafka, Catalogue(topic_prefix), postgres_url, blobs_url, tmp_path)


def uploaded(place: Place, name: str = "iris", number: int = NUMBER) -> Dataset:
    """Let the producer upload a dataset; returns it with a split that folds may have."""
    files = {"a.csv": b"a,species\n1,2\n"}
    told = Upload(raw_data_id=number, name=name, target_column="species", workflow_elements="classifier", files=files)
    split = Split(kind="standard", task_id="t", train_rows=75)
    return place.producer.upload(told).model_copy(update={"split": split})


def fold(fold_id: int, submission_id: int = 501, **fields: Any) -> Fold:
    """Return a producer's fold."""
    return Fold(fold_id=fold_id, submission_id=submission_id, files=FILES, train_is=range(9), **fields)


def refused(answer: requests.Response) -> dict[str, Any]:
    """Return why a request was refused."""
    assert answer.status_code == 400, answer.text
    return dict(answer.json())


def test_http_knows_what_a_producer_took(
    place: Place, fresh_database: Callable[[], AbstractContextManager[str]]
) -> None:
    """Its names, numbers, splits, folds and submissions; its datasets can be used; a rebuild says the same."""
    with place.gateway() as gateway:
        dataset = uploaded(place)
        task_id = place.producer.request_split(dataset, held_out_test=0.3)
        place.producer.request_fold(dataset, fold(1101)).result(30)
        wait_until(place.followed)
        assert "name" in refused(
            gateway.post(
                "rawdata/",
                {"name": "iris", "target_column": "a", "workflow_elements": "classifier"}
                | {"files": {"a.csv": packed("a,b\n1,2\n")}},
            )
        )
        asked = {"raw_data_id": NUMBER, "held_out_test": 0.3, "random_state": 42}
        assert gateway.post("rawdata/split/", asked).json() == {"task_id": task_id}
        assert gateway.post("rawdata/split/", asked | {"random_state": 7}).status_code == 409
        assert refused(gateway.post("submissionfold/", fold_body(1101, 501))) == refused(
            gateway.post("submissionfold/", fold_body(1101, 502, NUMBER))
        )
        other = {"files": {"classifier.py": packed("class Classifier: pass\n")}}
        assert "files" in refused(gateway.post("submissionfold/", fold_body(1102, 501, **other)))
        assert gateway.post("submissionfold/", fold_body(1102, 501)).status_code == 201
        assert gateway.post("submissionfold/", fold_body(1103, 502, NUMBER)).status_code == 201
        assert gateway.post("submissionfold/", fold_body(1101, 501, force="submission_fold")).status_code == 201
        assert gateway.upload("wine") == 1
        assert place.letters() == []
        text = requests.get(f"{gateway.url}/metrics", timeout=30).text
        assert "datarun_claims_lag_records" in text
        # Folds wait for the split that nobody makes here.
        query(place.postgres_url, "update intake.outbox set waiting_for = null")
        wait_until(lambda: len(read_events(place.kafka, place.catalogue.prefix, FoldRequested)) == 4)
        wait_until(place.followed)
    with fresh_database() as lost:
        assert place.rebuilt(lost) == claims_of(place.postgres_url)


def test_who_comes_second_is_told_so(place: Place, fresh_database: Callable[[], AbstractContextManager[str]]) -> None:
    """Claims of HTTP stand, dead letters say whose they are; records of nonsense between them stop nothing."""
    with place.gateway() as gateway:
        wine = gateway.upload("wine")
        assert gateway.post("submissionfold/", fold_body(11, 1, wine)).status_code == 201
        before = claims_of(place.postgres_url)
        dataset = uploaded(place, "wine")
        place.producer.request_split(uploaded(place, "rice", NUMBER + 1), held_out_test=0.3)
        hostile(place)
        place.producer.request_fold(dataset, fold(11)).result(30)
        place.producer.request_fold(dataset, fold(12, 1)).result(30)
        place.producer.request_split(dataset, held_out_test=0.3)
        wait_until(place.followed)
        details = sorted(letter.detail for letter in place.letters())
        assert details == [
            "another dataset has the name 'wine'",
            "attempt 1 of fold 11 is that of another request, by 'ada'",
            f"nobody has uploaded dataset {NUMBER}",
            "version 1 of submission 1 has other files or another dataset",
        ]
        found = {(letter.reason, letter.found_by) for letter in place.letters()}
        assert found == {("claimed", (GATEWAY,)), ("unknown_dataset", (GATEWAY,))}
        after = claims_of(place.postgres_url)
        assert [row for row in after["fold"] if row["fold_id"] == 11] == before["fold"]
        assert [row for row in after["submission"] if row["submission_id"] == 1] == before["submission"]
        assert [row["name"] for row in after["dataset"]] == ["wine", "rice"]
    with fresh_database() as lost:
        assert place.rebuilt(lost) == after


def hostile(place: Place) -> None:
    """Write what no producer should."""
    event = EXAMPLES[FoldRequested].model_copy(update={"fold_id": 77})
    good = encode(event, catalogue=place.catalogue, context=FOREIGN)
    producer = KafkaProducer({**producer_config(place.kafka), "message.max.bytes": 1_040_000})
    for record in (
        replace(good, value=b"\xff"),
        replace(good, value=b""),
        replace(good, headers=()),
        replace(good, headers=(("ce_type", b"datarun.FoldRequested.v9"),)),
        replace(good, key=b"78"),
        replace(good, value=good.value.replace(b'"fold_id":77', b'"fold_id":99999999999')),
        replace(good, value=good.value + b" " * (1_000_001 - len(good.value))),
    ):
        producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
    assert producer.flush(20) == 0


@contextmanager
def nobody_follows(place: Place) -> Iterator[None]:
    """Hold the lock under which gateways read on."""
    with closing(connect(place.postgres_url, application="test")) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(%s)", (FOLLOWER_LOCK,))
        yield


def test_what_was_accepted_before_it_was_read_stands(
    place: Place, fresh_database: Callable[[], AbstractContextManager[str]]
) -> None:
    """A gateway that did not know of a record yet has said 201; live and rebuilt claims agree that it is so."""
    with nobody_follows(place), place.gateway() as gateway:
        dataset = uploaded(place)
        place.producer.request_fold(dataset, fold(11, 1)).result(30)
        uploaded(place, "taken", 1)
        assert gateway.upload("iris") == 1
        assert gateway.upload("wine") == 2
        assert gateway.post("submissionfold/", fold_body(11, 1, 2)).status_code == 201
        assert not place.followed()
        wait_until(lambda: len(read_events(place.kafka, place.catalogue.prefix, FoldRequested)) == 2)
    with place.gateway():
        # What is there at its start is read before it answers.
        assert place.followed()
        kept = claims_of(place.postgres_url)
    assert [(row["raw_data_id"], row["name"]) for row in kept["dataset"]] == [(1, "iris"), (2, "wine")]
    assert [(row["raw_data_id"], row["requested_by"]) for row in kept["fold"]] == [(2, "ada")]
    assert sorted(letter.detail for letter in place.letters()) == [
        "another dataset has the name 'iris'",
        "attempt 1 of fold 11 is that of another request, by 'ada'",
        "dataset 1 is another one: 'iris'",
    ]
    with fresh_database() as lost:
        assert place.rebuilt(lost) == kept


def test_a_number_that_a_producer_took_is_passed_over(place: Place) -> None:
    """Gateways go on with the next free one, whatever is taken."""
    with place.gateway() as gateway:
        for number in (1, 3, 2_147_483_647):
            uploaded(place, f"taken {number}", number)
        wait_until(place.followed)
        assert [gateway.upload(name) for name in "abc"] == [4, 5, 6]
        query(place.postgres_url, "select setval('intake.dataset_id', 1)")
        assert [gateway.upload(name) for name in "de"] == [2, 7]


def test_another_gateway_goes_on_where_one_was_killed(place: Place) -> None:
    """Between the dead letter and its offset, too: it is there twice, and one letter."""
    crashing = {"DATARUN_CRASH_AT": "gateway.after_explaining:1"}
    with place.gateway(**crashing) as first, place.gateway() as second:
        wine = second.upload("wine")
        uploaded(place, "wine")
        wait_until(lambda: first.process.poll() is not None, seconds=30)
        wait_until(place.followed, seconds=30)
        assert [letter.detail for letter in place.letters()] == ["another dataset has the name 'wine'"]
        ends = place.log.end_offsets([place.catalogue.full_name(DEAD_LETTERS)])
        assert list(ends.values()) == [2]
        assert wine == 1


def test_a_gateway_on_an_empty_database_reads_the_log_first(
    place: Place, fresh_database: Callable[[], AbstractContextManager[str]]
) -> None:
    """It gives out no number, name, or attempt that the log knows, from its first answer on."""
    with place.gateway() as gateway:
        assert [gateway.upload(name) for name in ("iris", "wine")] == [1, 2]
        assert gateway.post("submissionfold/", fold_body(11, 1, 1)).status_code == 201
        cancel = gateway.session.post(f"{gateway.url}/v1/folds/11/cancel", json={}, auth=USER, timeout=30)
        assert cancel.status_code in (200, 202)
        wait_until(lambda: not gateway.query("select id from intake.outbox where sent_at is null"))
    with fresh_database() as empty:
        pretend_projected(empty, place.catalogue.prefix)
        with place.gateway(empty) as gateway:
            assert "databoard_sf_id" in refused(gateway.post("submissionfold/", fold_body(11, 1)))
            assert claims_of(empty) == claims_of(place.postgres_url)
            assert gateway.upload("rice") == 3


def test_an_empty_database_waits_for_a_log_that_is_away(place: Place) -> None:
    """It may be a lost one's: a gateway lives, and records nothing before it has looked."""
    with place.gateway() as gateway:
        gateway.upload("iris")
        wait_until(place.followed)
    query(place.postgres_url, "truncate intake.dataset, intake.outbox, intake.claim_offset")
    late = LateBroker(place.kafka)
    with place.gateway(kafka=late.address) as gateway:
        body = {"name": "wine", "target_column": "a", "workflow_elements": "classifier"}
        body |= {"files": {"a.csv": packed("a,b\n1,2\n")}}
        assert gateway.post("rawdata/", body).status_code == 503
        assert gateway.get("rawdata/").json() == []
        late.arrive()
        wait_until(lambda: gateway.post("rawdata/", body).status_code == 201, seconds=30)
        rows = query(place.postgres_url, "select raw_data_id, name from intake.dataset order by 1")
        assert [name for _, name in rows] == ["iris", "wine"]
        assert rows[0][0] == 1
