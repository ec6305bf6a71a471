"""What is measured and stated of one run: time, memory, isolation, and all that decides its predictions."""

from __future__ import annotations

from datarun.events.event import Fact
from datarun.events.fields import Count, Mebibytes, SandboxLevel, Seconds, Sha256, Text


class Metrics(Fact):
    """Wall and CPU time in seconds and peak memory in MiB of the stages that ran, measured outside the submission."""

    train_time: Seconds = 0.0
    train_cpu_time: Seconds = 0.0
    train_memory: Mebibytes = 0.0
    validation_time: Seconds = 0.0
    test_time: Seconds = 0.0
    test_cpu_time: Seconds = 0.0
    test_memory: Mebibytes = 0.0


class Sandbox(Fact):
    """The isolation a submission ran under: level 0 (none) to 4, and the mechanisms really in force."""

    level: SandboxLevel
    mechanisms: tuple[Text, ...] = ()


class Runtime(Fact):
    """What computes a fold's predictions, as its process reported it before any submission ran there."""

    environment: Sha256
    """Of the Python version and of every distribution that can be imported."""
    harness: Sha256
    """Of datarun's own code around the submission: how rows reach it, in which random state, under which limits."""
    threads: Count
    """The most that any numerical library computes with."""
    cpu: Text
    cpu_flags: Sha256
    blas: tuple[Text, ...]
    """Each linear algebra library: name, version, the kernels it chose for this CPU, its way to thread, its file."""


class Provenance(Runtime):
    """All that decides a fold's predictions: the same provenance gives the same bits. Digests only, no content."""

    data: Sha256
    """Of the files its rows were cut from, and of what is to be done with them."""
    code: Sha256
    """Of the submission's files and their names."""
    train_is: Sha256
    test_is: Sha256
    sandbox_level: SandboxLevel
