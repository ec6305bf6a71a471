"""Everything the local Kafka needs before it can start quickly: a Java, the jars, a formatted folder, an archive."""

from __future__ import annotations

from pathlib import Path

from datarun.stack.archive import archive_path, ensure_archive
from datarun.stack.jars import KAFKA_VERSION, ensure_jars, kafka_jars
from datarun.stack.java import find_java
from datarun.stack.kafka import KafkaProgram, ensure_template
from datarun.stack.report import Report, Silent


def ensure_kafka(
    cache: Path,
    *,
    java: Path | None = None,
    java_home: Path | None = None,
    tell: Report | None = None,
) -> tuple[KafkaProgram, Path]:
    """Return the program and the formatted template, fetching and making what the cache lacks."""
    report = tell or Silent()
    folder = cache / f"kafka-{KAFKA_VERSION}"
    found = find_java(java, home=java_home)

    def fetched(done: int, total: int) -> None:
        report.progress(f"fetching Apache Kafka {KAFKA_VERSION}, jars", done, total)

    program = KafkaProgram(found, ensure_jars(folder / "jars", kafka_jars(), progress=fetched))
    template = ensure_template(program, folder)
    if not archive_path(program, folder).exists():
        report.note(f"preparing Kafka for quick starts with Java {found.version}, once (about 10 s)")
    return ensure_archive(program, folder), template
