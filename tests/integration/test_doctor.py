"""The doctor with nothing running, with everything well, and with one thing wrong at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datarun import envelope, tokens
from datarun.doctor import machine, servers
from datarun.doctor.findings import Finding, State
from datarun.events import RunnerHeartbeat, Sandbox
from datarun.log.admin import create_topics
from datarun.log.kafka import KafkaLog
from datarun.settings import load_settings
from datarun.topics import Catalogue
from tests.blob_gateways import blob_gateway
from tests.gateways import ROOT, query

NOWHERE = "127.0.0.1:9"


def doctor(*arguments: str | Path, python: str | Path = sys.executable) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the command; return its exit code and its findings by name."""
    argv = [python, "-m", "datarun.cli", "doctor", "--json", *map(str, arguments)]
    ended = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert ended.stderr == ""
    return ended.returncode, {finding["name"]: finding for finding in json.loads(ended.stdout)}


def examined(folder: Path, **options: Any) -> dict[str, Finding]:
    """Return what the doctor finds of the servers."""
    return {finding.name: finding for finding in servers.examine(load_settings(folder, **options))}


@contextmanager
def beating(kafka: str, prefix: str) -> Iterator[None]:
    """Let a runner beat four times a second."""
    log, stop = KafkaLog(kafka), threading.Event()

    def beat() -> None:
        sequence = 0
        while not stop.wait(0.25):
            sequence += 1
            event = RunnerHeartbeat(
                runner_id="r", sequence=sequence, host="h", pid=1, queues=("H",), slots=1, sandbox=Sandbox(level=3)
            )
            context = envelope.Context("test", envelope.now())
            log.append(envelope.encode(event, catalogue=Catalogue(prefix), context=context))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        log.close()


def test_an_environment_that_is_a_link_has_the_same_sandbox(tmp_path: Path) -> None:
    """The interpreters that some installers make are found by links, which lead out of what a fold may see."""
    linked = tmp_path / "linked"
    linked.symlink_to(sys.prefix)
    python = linked / Path(sys.executable).relative_to(sys.prefix)
    levels = [
        {name: one["state"] for name, one in doctor(python=each)[1].items() if name.startswith("sandbox")}
        for each in (Path(sys.executable), python)
    ]
    assert levels[0] == levels[1]
    assert len(levels[0]) == 5


def test_with_nothing_running_it_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    """Every part is told; what is needed has a remedy; the exit code is 1."""
    code, found = doctor("--dir", tmp_path, "--sandbox-min", "1", "--token-file", tmp_path / "none")
    assert code == 1
    assert {name for name in found if name.startswith("sandbox")} == {f"sandbox level {level}" for level in range(5)}
    assert {"python", "packages", "disk", "user namespaces", "kafka", "postgres", "blobs", "gateway"} <= found.keys()
    assert (found["python"]["state"], found["packages"]["state"]) == ("ok", "ok")
    assert "datarun up" in found["kafka"]["remedy"]
    assert "token file" in found["settings"]["seen"]
    assert {name for name, finding in found.items() if finding["state"] == "missing"} == {"kafka", "settings"}
    levels = [found[f"sandbox level {level}"] for level in range(5)]
    strongest = [finding for finding in levels if finding["state"] == "ok"][-1]
    assert "no_new_privs" in strongest["seen"]
    assert "not held" in levels[1]["seen"]
    assert all(finding["remedy"] for finding in levels if finding["state"] != "ok")


def test_a_level_that_is_needed_and_not_had_makes_it_fail() -> None:
    """Below the minimum it is missing, above it only noted."""
    states = {
        minimum: {finding.name[-1]: finding.state for finding in machine._sandbox(minimum) if finding.remedy}
        for minimum in (0, 4)
    }
    assert set(states[0].values()) <= {State.NOTED}
    assert set(states[4].values()) <= {State.MISSING}
    assert states[0].keys() == states[4].keys()


def test_with_everything_well_it_says_so(kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """Topics, clock, tables, blobs, token and role are seen as they are; the command ends with 0."""
    create_topics(kafka, prefix=topic_prefix)
    with blob_gateway(tmp_path, kafka, postgres_url) as gateway, beating(kafka, topic_prefix):
        secret = tmp_path / "token"
        secret.write_text(gateway.token)
        servers_named = ("--kafka", kafka, "--postgres", postgres_url, "--blobs", gateway.folder.as_uri())
        options = ("--gateway", gateway.url, "--token-file", secret, "--topic-prefix", topic_prefix)
        code, found = doctor("--dir", tmp_path, "--sandbox-min", "1", *servers_named, *options)
    wrong = {name: finding for name, finding in found.items() if finding["state"] == "missing"}
    assert (code, wrong) == (0, {})
    for name in ("kafka", "topics", "clock", "postgres", "blobs", "gateway"):
        assert found[name]["state"] == "ok", found[name]
    assert found["gateway"]["seen"].endswith("as runner")


def test_each_wrong_server_is_told_with_its_remedy(
    kafka: str, postgres_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Topics that are not made, tables of another version, a folder that is none, tokens of strangers and people."""
    (tmp_path / "file").write_text("")
    query(postgres_url, "update intake.alembic_version set version_num = '0001'")
    query(postgres_url, "comment on schema rm is 'other'")
    with blob_gateway(tmp_path, kafka, postgres_url) as gateway:
        secret = tmp_path / "token"
        secret.write_text(tokens.make())
        named: dict[str, Any] = {"gateway_url": gateway.url, "token_file": secret, "topic_prefix": topic_prefix}
        found = examined(tmp_path, kafka=kafka, postgres_url=postgres_url, blobs=str(tmp_path / "file" / "x"), **named)
        assert {finding.state for name, finding in found.items() if name not in ("kafka", "clock")} == {State.MISSING}
        assert "topics create" in found["topics"].remedy
        assert "intake is at 0001" in found["postgres"].seen
        assert "rm is at other" in found["postgres"].seen
        assert "datarun db upgrade" in found["postgres"].remedy
        assert "does not know the token" in found["gateway"].seen
        participant = tokens.make()
        tokens.add(postgres_url, participant, "eve", role="participant")
        secret.write_text(participant)
        away = examined(tmp_path, kafka=NOWHERE, postgres_url="postgresql://x@127.0.0.1:9/x", **named)
    assert "may not run folds" in away["gateway"].seen
    assert "does not answer" in away["postgres"].seen
    assert "does not answer" in away["kafka"].seen
    assert away["blobs"].state is State.NOTED
    assert examined(tmp_path, kafka=NOWHERE, gateway_url=f"http://{NOWHERE}")["gateway"].state is State.MISSING


def test_a_clock_that_is_wrong_is_told(
    kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference that is too large is missing; without a heartbeat there is nothing to compare with."""
    create_topics(kafka, prefix=topic_prefix)
    settings = load_settings(tmp_path, kafka=kafka, topic_prefix=topic_prefix)
    monkeypatch.setattr(servers, "BEAT_SECONDS", 0.5)
    assert servers._clock(settings).state is State.NOTED
    monkeypatch.setattr(servers, "BEAT_SECONDS", 10.0)
    with beating(kafka, topic_prefix):
        assert servers._clock(settings).state is State.WELL
        monkeypatch.setattr(servers, "MAX_SKEW_SECONDS", -1.0)
        assert "timedatectl" in servers._clock(settings).remedy
