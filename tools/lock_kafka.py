#!/usr/bin/env python3
"""Writes datarun/stack/kafka-VERSION.sha256: resolves Apache Kafka's jars on Maven Central and sums what comes.

Run it by hand when the version changes, and read the difference before committing it.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jgo.maven import MavenContext
from jgo.maven._core import Artifact
from jgo.parse import Endpoint

from datarun.cli.environment import trust_system_certificates
from datarun.stack.jars import KAFKA_VERSION, PARALLEL_DOWNLOADS

# Kafka brings no logger of its own.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
TARGET = Path(__file__).parents[1] / "datarun" / "stack" / f"kafka-{KAFKA_VERSION}.sha256"
HEADER = (
    f"# Apache Kafka {KAFKA_VERSION} and what it runs on"
    ": sha256 and Maven coordinates of every jar; written by tools/lock_kafka.py"
)


def resolve(context: MavenContext) -> list[Artifact]:
    """Return every artifact that a running broker needs."""
    coordinates = Endpoint.parse(ENDPOINT).coordinates
    wanted = [context.create_dependency(replace(one, scope=one.scope or "compile")) for one in coordinates]
    given, implied = context.resolver.resolve(wanted)
    return [one.artifact for one in (*given, *implied) if one.scope in ("compile", "runtime")]


def main() -> None:
    """Write the list."""
    trust_system_certificates()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        artifacts = resolve(MavenContext(repo_cache=Path(folder)))
        sums = pool.map(lambda artifact: hashlib.sha256(artifact.resolve().read_bytes()).hexdigest(), artifacts)
        lines = [
            (artifact.filename, f"{sha256}  {artifact.groupId}:{artifact.artifactId}:{artifact.version}")
            for artifact, sha256 in zip(artifacts, sums, strict=True)
        ]
    TARGET.write_text("\n".join([HEADER, *(line for _, line in sorted(lines))]) + "\n", encoding="utf-8")
    sys.stdout.write(f"{TARGET}: {len(lines)} jars\n")


if __name__ == "__main__":
    main()
