"""Which partition a key belongs to: Java's murmur2, which librdkafka calls murmur2_random and aiokafka uses as well."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

_SEED, _M, _MASK = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF
PARTITIONER = "the partitioner is murmur2_random"
REMEMBERED_KEYS = 65_536
"""The events of a fold are near each other, and hashing costs ten times what remembering does."""

MANY = 64
"""So many keys are hashed together in less time than one after the other."""


@lru_cache(REMEMBERED_KEYS)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_of(keys: Collection[bytes], partitions: int) -> dict[bytes, int]:
    """Return the partition of each key; many together take a tenth of the time."""
    if len(keys) < MANY:
        return {key: partition_of(key, partitions) for key in keys}
    found: dict[bytes, int] = {}
    for length, alike in _by_length(keys).items():
        found |= zip(alike, ((_hashes(alike, length) & 0x7FFFFFFF) % partitions).tolist(), strict=True)
    return found


def murmur2(key: bytes) -> int:
    """Return the 32-bit murmur2 hash as Kafka's clients compute it."""
    length = len(key)
    hashed = (_SEED ^ length) & _MASK
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        hashed = hashed * _M & _MASK ^ word
    if length > whole:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


def _by_length(keys: Iterable[bytes]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for key in keys:
        found.setdefault(len(key), []).append(key)
    return found


def _hashes(keys: list[bytes], length: int) -> Any:
    """Return the hashes of keys of one length as an array: the same steps, each for all of them."""
    import numpy as np  # noqa: PLC0415 - a tenth of a second

    def word(start: int, stop: int) -> Any:
        return sum(content[:, at].astype(np.uint32) << np.uint32(8 * (at - start)) for at in range(start, stop))

    content = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), length)
    factor, whole = np.uint32(_M), length & ~3
    hashed = np.full(len(keys), _SEED ^ length, np.uint32)
    for start in range(0, whole, 4):
        mixed = word(start, start + 4) * factor
        mixed = (mixed ^ mixed >> np.uint32(24)) * factor
        hashed = hashed * factor ^ mixed
    if length > whole:
        hashed = (hashed ^ word(whole, length)) * factor
    hashed = (hashed ^ hashed >> np.uint32(13)) * factor
    return hashed ^ hashed >> np.uint32(15)
