"""A client that writes to Kafka itself: docs/producers.md runs as it stands, and what is hostile is set aside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer as KafkaProducer

from datarun.blobs import LocalBlobs
from datarun.envelope import Context, check_route, decode, encode, header, now
from datarun.events import Blob, CustomSplit, FoldRequested, FoldTested, Priority, SplitRequested
from datarun.log import Record
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog, producer_config
from datarun.log.memory import MemoryLog
from datarun.partitioner import partition_of
from datarun.producer import Fold, Invalid, NotSplit, Producer, Upload
from datarun.published.examples import EXAMPLES
from datarun.topics import DEAD_LETTERS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, Catalogue
from tests.gateways import ROOT, Gateway, read_log, running_gateway, wait_until
from tests.integration.test_other_host import running
from tests.projecting import Installation

PAGE = (ROOT / "docs" / "producers.md").read_text()
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(KCAT,) = re.findall(r"```sh\n(kcat .*?)```", PAGE, re.DOTALL)
IRIS = {"classifier.py": (ROOT / "datarun/examples/iris/classifier.py").read_bytes()}
UPLOAD = Upload(
    raw_data_id=1_000_000_001,
    name="iris",
    target_column="species",
    workflow_elements="classifier",
    files={"a.csv": b"x"},
)
MISSING = Blob(sha256="f" * 64, size=3)


@pytest.fixture
def stack(
    kafka: str, postgres_url: str, topic_prefix: str, blobs_url: str, tmp_path: Path
) -> Iterator[tuple[Gateway, Installation, Any]]:
    """Run a gateway, a projector and a runner."""
    create_topics(kafka, prefix=topic_prefix)
    servers = {"kafka": kafka, "postgres_url": postgres_url, "blobs_url": blobs_url, "prefix": topic_prefix}
    installation = Installation(kafka, postgres_url, Catalogue(topic_prefix), tmp_path)
    command = [sys.executable, "-m", "services.runner", "--kafka", kafka, "--topic-prefix", topic_prefix]
    command += ["--blobs", blobs_url, "--slots", "1", "--sandbox-min", "1", "--dir", str(tmp_path / "runner")]
    with ExitStack() as opened:
        gateway = opened.enter_context(running_gateway(tmp_path / "gateway", **servers))
        opened.enter_context(installation.projector())
        runner = opened.enter_context(running(command, tmp_path / "runner.log", cwd=ROOT))
        yield gateway, installation, runner


def test_the_example_runs_and_what_must_not_be_written_is_set_aside(
    stack: tuple[Gateway, Installation, Any], blobs_url: str, monkeypatch: pytest.MonkeyPatch, kafka: str
) -> None:
    """The example's fold is in the gateway's answers; hostile records become dead letters, and later folds run."""
    gateway, installation, runner = stack
    monkeypatch.chdir(ROOT)
    for name, value in {"KAFKA": kafka, "BLOBS": blobs_url, "TOPIC_PREFIX": installation.catalogue.prefix}.items():
        monkeypatch.setenv(f"DATARUN_{name}", value)
    names: dict[str, Any] = {}
    exec(compile(EXAMPLE, "docs/producers.md", "exec"), names)  # noqa: S102
    wait_until(lambda: state(gateway, 1101) == "TESTED", seconds=90)
    (new,) = gateway.post("testpredictions/new/", {}).json()
    assert (new["databoard_sf_id"], new["databoard_s"]) == (1101, 501)
    assert [dataset["name"] for dataset in gateway.get("rawdata/").json()] == ["iris"]

    log = KafkaLog(kafka)
    try:
        expected = send_hostile(installation, names["dataset"])
        # More of them: what a runner is handed as one batch it appends anew, each record by itself.
        wait_until(lambda: Counter(expected) <= Counter(reasons(gateway)), seconds=20)
        assert set(reasons(gateway)) == set(expected)
        wait_until(lambda: installation.caught_up(log), seconds=20)
        also = {"blob_missing", "unknown_dataset"}
        wait_until(lambda: set(expected) | also == set(lamented(log, installation)), seconds=30)
        wait_until(lambda: split_error(gateway, 9), seconds=20)
        assert "ERROR(split data)" in (split_error(gateway, 9) or "")
        assert runner.poll() is None
        again = Fold(fold_id=1102, submission_id=501, files=IRIS, train_is=range(60), priority=Priority.HIGH)
        blobs = LocalBlobs(Path(blobs_url.removeprefix("file://")))
        ours = Producer(log, blobs, catalogue=installation.catalogue, name="databoard")
        ours.request_fold(names["dataset"], again).result(30)
        wait_until(lambda: state(gateway, 1102) == "TESTED", seconds=90)
    finally:
        log.close()


def test_the_line_for_kcat_writes_what_can_be_applied(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """As it stands, with kcat or what stands in for it: decoded, in its place, under its key."""
    create_topics(kafka, prefix=topic_prefix)
    catalogue = Catalogue(topic_prefix)
    line = KCAT.replace("host:9092", kafka).replace("datarun.fold-requests", f"{topic_prefix}fold-requests")
    if shutil.which("kcat") is None:
        stand_in = tmp_path / "kcat"
        stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.kcat "$@"\n')
        stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:{tmp_path}"}
    subprocess.run(["bash", "-euc", line], cwd=ROOT, env=environment, check=True, timeout=60)
    (record,) = read_log(kafka, topic_prefix)
    event = decode(record.value, record.headers)
    check_route(event, record, catalogue=catalogue)
    assert event == EXAMPLES[FoldRequested]
    assert header(record.headers, "ce_subject") == event.key


def state(gateway: Gateway, fold_id: int) -> str | None:
    """Return the state of a fold, None for one that the gateway does not know."""
    answer = gateway.get(f"submissionfold/{fold_id}/")
    return answer.json()["state"] if answer.ok else None


def split_error(gateway: Gateway, raw_data_id: int) -> str | None:
    """Return why a dataset has no split."""
    rows = gateway.query("select split_error from rm.dataset where raw_data_id = %s", raw_data_id)
    return rows[0][0] if rows else None


def reasons(gateway: Gateway) -> list[str]:
    """Return the reasons of the projector's dead letters."""
    return [reason for (reason,) in gateway.query("select reason from rm.dead_letter")]


def lamented(log: KafkaLog, installation: Installation) -> list[str | None]:
    """Return the reasons of the runner's and the gateway's dead letters."""
    ends = log.end_offsets([installation.catalogue.full_name(DEAD_LETTERS)])
    batches = log.read(dict.fromkeys(ends, 0), until_end=True)
    return [header(record.headers, "datarun-reason") for batch in batches for record in batch]


def send_hostile(installation: Installation, dataset: Any) -> list[str]:
    """Write what no producer should, as one that knows no rules; return the reasons the projector will have."""
    producer = KafkaProducer({**producer_config(installation.kafka), "message.max.bytes": 1_040_000})
    expected = []

    def send(record: Record, reason: str | None, **options: Any) -> None:
        producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers), **options)
        if reason is not None:
            expected.append(reason)

    def encoded(event: Any) -> Record:
        return encode(event, catalogue=installation.catalogue, context=Context("foreign", now()))

    good = EXAMPLES[FoldRequested].model_copy(update={"dataset": dataset, "fold_id": 77})
    request, tested = encoded(good), encoded(EXAMPLES[FoldTested])

    def retyped(name: str) -> Record:
        return replace(request, headers=tuple({**dict(request.headers), "ce_type": name.encode()}.items()))

    home = partition_of(tested.key, FOLD_EVENTS.partitions)
    send(replace(request, value=b"\xff no json"), "undecodable")
    send(retyped("datarun.FoldSold.v1"), "unknown_type")
    send(retyped("datarun.FoldRequested.v9"), "unknown_version")
    send(replace(request, value=request.value.replace(b'"fold_id":77', b'"fold_id":"77"')), "schema")
    send(replace(request, value=request.value + b" " * (1_000_001 - len(request.value))), "too_large")
    send(replace(request, key=b"78"), "misrouted")
    send(replace(tested, topic=installation.catalogue.full_name(FOLD_REQUESTS_HIGH)), "misrouted")
    send(tested, "misrouted", partition=(home + 1) % FOLD_EVENTS.partitions)
    files = tuple(file.model_copy(update={"blob": MISSING}) for file in good.files)
    send(encoded(good.model_copy(update={"fold_id": 79, "files": files})), None)
    gone = (dataset.files[0].model_copy(update={"blob": MISSING}),)
    lost = dataset.model_copy(update={"raw_data_id": 9, "split": None, "files": gone})
    split = SplitRequested(raw_data_id=9, attempt=1, task_id="t", plan=CustomSplit(), dataset=lost, requested_by="x")
    send(encoded(split), None)
    assert producer.flush(20) == 0
    return expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "../etc"}, "name:"),
        ({"workflow_elements": " , "}, "workflow_elements:"),
        ({"files": {}}, "files: none"),
        ({"files": {"../x.py": b""}}, "files: '../x.py' is not a valid file name"),
        ({"files": {"A.csv": b"", "a.csv": b""}}, "files: names differ only by case"),
        ({"raw_data_id": 0}, "raw_data_id: "),
        ({"target_column": "x" * 201}, "target_column: "),
    ],
)
def test_a_dataset_that_the_gateway_would_refuse_is_not_sent(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    """It is said what is wrong, and nothing is in the log."""
    log, producer = memory_producer(tmp_path)
    with pytest.raises(Invalid, match=re.escape(why)):
        producer.upload(replace(UPLOAD, **change))
    assert length(log) == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"train_is": []}, "train_is: 0 indices"),
        ({"train_is": [0, 0]}, "train_is: a row appears twice"),
        ({"train_is": [105]}, "train_is: rows are 0 to 104"),
        ({"train_is": [-1]}, "train_is: rows are 0 to 104"),
        ({"train_is": [0.5]}, "train_is: indices are whole numbers"),
        ({"files": {"x.py": b""}}, "files: missing classifier.py"),
        ({"fold_id": 2**31}, "fold_id: "),
        ({"attempt": 0}, "attempt: "),
    ],
)
def test_a_fold_that_could_not_run_is_not_sent(change: dict[str, Any], why: str, tmp_path: Path) -> None:
    """It is said what is wrong, and nothing is in the log."""
    log, producer = memory_producer(tmp_path)
    fold = Fold(fold_id=1, submission_id=1, files=IRIS, train_is=range(80))
    with pytest.raises(Invalid, match=re.escape(why)):
        producer.request_fold(EXAMPLES[FoldRequested].dataset, replace(fold, **change))  # type: ignore[attr-defined]
    assert length(log) == 0


def test_what_is_sent_twice_is_the_same(tmp_path: Path) -> None:
    """Id, key and content are; who does not know whether it has sent something sends it again."""
    log, producer = memory_producer(tmp_path)
    fold = Fold(fold_id=1, submission_id=1, files=IRIS, train_is=range(80))
    for _ in range(2):
        producer.request_fold(EXAMPLES[FoldRequested].dataset, fold).result()  # type: ignore[attr-defined]
    first, second = (record for batch in log.read(dict.fromkeys(ends(log), 0), until_end=True) for record in batch)
    assert (first.key, first.value) == (second.key, second.value)
    assert header(first.headers, "ce_id") == header(second.headers, "ce_id")


def test_a_split_without_a_result_is_waited_for_within_a_bound(tmp_path: Path) -> None:
    """Nobody waits for ever for a runner that is not there."""
    _, producer = memory_producer(tmp_path)
    dataset = producer.upload(UPLOAD)
    producer.request_split(dataset, held_out_test=0.5)
    begun = time.monotonic()
    with pytest.raises(NotSplit):
        producer.wait_for_split(dataset, seconds=0.2)
    assert time.monotonic() - begun >= 0.2


def memory_producer(tmp_path: Path) -> tuple[MemoryLog, Producer]:
    """Return a producer whose log is in memory."""
    catalogue = Catalogue("t.")
    log = MemoryLog(catalogue)
    return log, Producer(log, LocalBlobs(tmp_path), catalogue=catalogue, name="databoard")


def ends(log: MemoryLog) -> Any:
    """Return the end of each partition."""
    from datarun.topics import TOPICS

    return log.end_offsets([Catalogue("t.").full_name(topic) for topic in TOPICS])


def length(log: MemoryLog) -> int:
    """Return how many records there are."""
    return sum(ends(log).values())
