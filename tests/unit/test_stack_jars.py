"""Apache Kafka's jars: only those of the committed list."""

import hashlib
from pathlib import Path

import pytest

from datarun.stack.jars import Jar, JarsMissing, ensure_jars, kafka_jars

CONTENT = b"PK a jar"
JAR = Jar(hashlib.sha256(CONTENT).hexdigest(), "org.example", "thing", "1.0")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the network off."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_the_committed_list_is_whole() -> None:
    """Apache Kafka 4.4.0 is 45 jars, each with its own sum and name."""
    jars = kafka_jars()
    assert len(jars) == len({jar.sha256 for jar in jars}) == len({jar.file_name for jar in jars}) == 45
    assert "kafka_2.13-4.4.0.jar" in {jar.file_name for jar in jars}


@pytest.mark.usefixtures("offline")
def test_jars_put_there_by_hand_are_used(tmp_path: Path) -> None:
    """A machine without a network needs no more than the files."""
    (tmp_path / "thing-1.0.jar").write_bytes(CONTENT)
    (tmp_path / "another.jar").touch()
    for _ in range(2):
        assert ensure_jars(tmp_path, [JAR]) == [tmp_path / "thing-1.0.jar"]


@pytest.mark.usefixtures("offline")
def test_without_jars_and_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    """It names the option for another broker and the folder for the files."""
    with pytest.raises(JarsMissing, match="--kafka HOST:PORT") as caught:
        ensure_jars(tmp_path, [JAR])
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / ".staging").exists()


@pytest.mark.usefixtures("offline")
def test_a_jar_that_was_changed_is_not_run(tmp_path: Path) -> None:
    """Its sum is taken again when the file was touched."""
    (tmp_path / "thing-1.0.jar").write_bytes(CONTENT)
    ensure_jars(tmp_path, [JAR])
    (tmp_path / "thing-1.0.jar").write_bytes(b"PK evil!")
    with pytest.raises(JarsMissing):
        ensure_jars(tmp_path, [JAR])
