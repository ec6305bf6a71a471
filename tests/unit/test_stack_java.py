"""Which Java is used."""

from pathlib import Path

import pytest

from datarun.stack.java import JavaMissing, find_java


def java(folder: Path, answer: str) -> Path:
    """Make an executable that answers `-version` like a Java."""
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("answer", "version", "has_aot_cache"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15", False),
        ('java version "25" 2025-09-16', "25", True),
        ('openjdk version "26-ea" 2026-03-17', "26-ea", True),
    ],
)
def test_a_given_java_says_its_version(tmp_path: Path, answer: str, version: str, *, has_aot_cache: bool) -> None:
    """The home and the executable are as good as each other."""
    executable = java(tmp_path, answer)
    assert find_java(tmp_path) == find_java(executable)
    assert find_java(executable).version == version
    assert find_java(executable).has_aot_cache is has_aot_cache


@pytest.mark.parametrize("answer", ['openjdk version "11.0.2"', 'java version "1.8.0_292"', "not a java"])
def test_a_given_java_that_does_not_suit_is_refused(tmp_path: Path, answer: str) -> None:
    """Nothing else is used silently instead."""
    with pytest.raises(JavaMissing, match="--java"):
        find_java(java(tmp_path, answer))


def test_a_given_java_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A mistyped path is an error."""
    with pytest.raises(JavaMissing, match="nowhere"):
        find_java(tmp_path / "nowhere")


def test_the_installed_runtime_comes_before_the_machines(tmp_path: Path) -> None:
    """JAVA_HOME may be of any age; the runtime installed with datarun is known to work."""
    java(tmp_path, 'openjdk version "11.0.2"')
    assert find_java(home=tmp_path).major >= 17
