"""Starts the projector: python -m services.projector --dir DIR."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datarun.errors import DatarunError
from datarun.overtaking import PATIENCE_SECONDS
from datarun.settings import DEFAULT_DIR, load_settings
from datarun.telemetry import configure_logging

SESSION_SECONDS = 6.0
"""The least that Kafka allows by default."""


def main() -> int:
    """Run the projector until it is told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="datarun projector", description="Project the log into the read model.")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="folder of a running `datarun up`")
    parser.add_argument("--kafka", help="host:port of the brokers")
    parser.add_argument("--postgres", help="URL of the database")
    parser.add_argument("--topic-prefix", help="what the topics' names begin with")
    parser.add_argument(
        "--session-timeout",
        type=float,
        default=SESSION_SECONDS,
        help="seconds after which Kafka gives up a projector that was killed; not below group.min.session.timeout.ms",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_SECONDS,
        help="seconds for which a queue may pass a waiting fold over before it is put back into it",
    )
    options = parser.parse_args()
    try:
        settings = load_settings(
            options.dir, kafka=options.kafka, postgres_url=options.postgres, topic_prefix=options.topic_prefix
        )
        url = settings.postgres
    except DatarunError as error:
        parser.error(str(error))
    configure_logging("projector", level=settings.log_level)
    from services.projector.service import run  # noqa: PLC0415 - a refused option need not wait for Faust

    return run(settings, url, session_seconds=options.session_timeout, patience_seconds=options.patience)


if __name__ == "__main__":
    sys.exit(main())
