"""Wrong passwords a minute: guessing is slow, and who knows a password is let in all the same.

A name may be tried ten times from one address. What many addresses try on one name, and one address on many names, is
bounded too, but never for a name let in from that address within a day: who guesses elsewhere locks nobody out.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic

from services.ingest.refusals import Refusal, detail

PER_NAME_AND_ADDRESS = 10
PER_NAME = 30
PER_ADDRESS = 60
WINDOW_SECONDS = 60.0
KNOWN_SECONDS = 24 * 3600.0
REMEMBERED = 10_000
"""So many names, addresses and pairs of them; the oldest make room."""
_IPV6_PREFIX = 64
"""One client has as many addresses as it likes below one of these."""


@dataclass(slots=True)
class _Count:
    """Tries in a window of time."""

    number: int
    until: float


class _Counter:
    """Tries by key, each in a window of its own; one that is full ends a whole window after its last try."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: OrderedDict[Hashable, _Count] = OrderedDict()

    def wait(self, key: Hashable, now: float) -> float:
        """Return for how many seconds no more is allowed."""
        count = self._counts.get(key)
        return count.until - now if count is not None and count.number >= self._limit else 0.0

    def add(self, key: Hashable, now: float) -> None:
        count = self._counts.pop(key, None)
        if count is None or count.until <= now:
            count = _Count(0, now + WINDOW_SECONDS)
        count.number += 1
        if count.number >= self._limit:
            count.until = now + WINDOW_SECONDS
        self._counts[key] = count
        while len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    def take_back(self, key: Hashable) -> None:
        count = self._counts.get(key)
        if count is not None:
            count.number = max(0, count.number - 1)


class Throttle:
    """Counts tries from their beginning, so that many at once are no way round it."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._pairs = _Counter(PER_NAME_AND_ADDRESS)
        self._names = _Counter(PER_NAME)
        self._addresses = _Counter(PER_ADDRESS)
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def begin(self, name: str, address: str) -> Try:
        """Count a try; raises Refusal if there were too many."""
        now = self._clock()
        pair = (name, network_of(address))
        wait = self._pairs.wait(pair, now)
        if self._known.get(pair, 0.0) <= now:
            wait = max(wait, self._names.wait(name, now), self._addresses.wait(pair[1], now))
        if wait > 0:
            raise too_many(wait)
        for counter, key in self._keys(pair):
            counter.add(key, now)
        return Try(self, pair)

    def end(self, pair: tuple[str, str], *, was_right: bool) -> None:
        """Take a try back that was not wrong."""
        for counter, key in self._keys(pair):
            counter.take_back(key)
        if was_right:
            self._known[pair] = self._clock() + KNOWN_SECONDS
            self._known.move_to_end(pair)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _keys(self, pair: tuple[str, str]) -> tuple[tuple[_Counter, Hashable], ...]:
        return (self._pairs, pair), (self._names, pair[0]), (self._addresses, pair[1])


@dataclass(frozen=True, slots=True)
class Try:
    """One try, counted as wrong unless something else is said."""

    _throttle: Throttle
    _pair: tuple[str, str]

    def right(self) -> None:
        """Say that the password was right."""
        self._throttle.end(self._pair, was_right=True)

    def untold(self) -> None:
        """Say that nobody knows whether it was."""
        self._throttle.end(self._pair, was_right=False)


def network_of(address: str) -> str:
    """Return what stands for a client: its address, of IPv6 the network it chooses its addresses from."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, _IPV6_PREFIX), strict=False))


def too_many(seconds: float) -> Refusal:
    """Refuse to look at one more password."""
    rounded = str(math.ceil(seconds))
    return detail(429, f"Too many failed logins. Try again in {rounded} s.", Retry_After=rounded)
