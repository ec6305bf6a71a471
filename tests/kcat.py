"""What stands in for kcat where it is not installed: its options of a producer, sent by the same library."""

from __future__ import annotations

import argparse
from pathlib import Path

from confluent_kafka import Producer


def main() -> None:
    """Send each file as one record, as `kcat -P` does."""
    options = argparse.ArgumentParser()
    for name in "Pbtk":
        options.add_argument(f"-{name}", **({"action": "store_true"} if name == "P" else {"required": True}))  # type: ignore[arg-type]
    for name in "XH":
        options.add_argument(f"-{name}", action="append", default=[])
    options.add_argument("files", nargs="+", type=Path)
    given = options.parse_args()
    settings = dict(one.split("=", 1) for one in given.X)
    producer = Producer({"bootstrap.servers": given.b, **settings})
    headers = [(name, value.encode()) for name, value in (one.split("=", 1) for one in given.H)]
    for file in given.files:
        producer.produce(given.t, key=given.k.encode(), value=file.read_bytes(), headers=headers)
    if producer.flush(20):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
