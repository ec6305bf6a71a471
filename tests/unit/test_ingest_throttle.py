"""How many wrong passwords are looked at, and whom that leaves alone."""

from __future__ import annotations

import pytest

from services.ingest import throttle
from services.ingest.refusals import Refusal
from services.ingest.throttle import (
    KNOWN_SECONDS,
    PER_ADDRESS,
    PER_NAME,
    PER_NAME_AND_ADDRESS,
    Throttle,
    network_of,
    too_many,
)

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


class Door:
    """A throttle with a clock to set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.throttle = Throttle(lambda: self.now)

    def guess(self, name: str = "ada", address: str = HOME, *, times: int = 1) -> None:
        """Try wrong passwords."""
        for _ in range(times):
            self.throttle.begin(name, address)

    def enter(self, name: str = "ada", address: str = HOME) -> None:
        """Try the right password."""
        self.throttle.begin(name, address).right()

    def wait(self, name: str = "ada", address: str = HOME) -> int:
        """Return how many seconds the answer says, 0 when the password is looked at."""
        try:
            self.throttle.begin(name, address).untold()
        except Refusal as refused:
            refusal = refused
        else:
            return 0
        seconds = refusal.headers["Retry-After"]
        assert (refusal.status, refusal.body) == (429, too_many(float(seconds)).body)
        return int(seconds)


@pytest.fixture
def door() -> Door:
    """Return a door nobody has come to."""
    return Door()


def test_the_eleventh_try_waits_a_minute(door: Door) -> None:
    """Ten are looked at; a minute after the tenth there are ten more."""
    door.guess(times=PER_NAME_AND_ADDRESS)
    assert door.wait() == 60
    door.now = 59.5
    assert door.wait() == 1
    door.now = 60.5
    door.guess(times=PER_NAME_AND_ADDRESS)
    assert door.wait() == 60


def test_a_right_password_is_no_failure(door: Door) -> None:
    """However often somebody comes in, or nobody could tell, nothing is counted."""
    for _ in range(3 * PER_ADDRESS):
        door.enter()
        assert door.wait() == 0


def test_tries_that_are_under_way_count(door: Door) -> None:
    """A hundred at once are no more than one after the other."""
    begun = [door.throttle.begin("ada", HOME) for _ in range(PER_NAME_AND_ADDRESS)]
    assert door.wait() == 60
    begun[0].right()
    assert door.wait() == 0


def test_others_are_unaffected(door: Door) -> None:
    """Another name at the same address, and the same name elsewhere, are looked at."""
    door.guess(times=PER_NAME_AND_ADDRESS)
    assert door.wait("bob") == 0
    assert door.wait(address=ELSEWHERE) == 0


def test_guessing_elsewhere_does_not_lock_out_who_is_known_here(door: Door) -> None:
    """Many addresses may guess a name as often as they like; where it was let in, it is looked at."""
    door.enter()
    for number in range(50):
        address = f"203.0.113.{number}"
        while not door.wait(address=address):
            door.guess(address=address)
    assert door.wait(address=ELSEWHERE) > 0
    assert door.wait() == 0
    door.now = KNOWN_SECONDS + 1
    door.guess(address=ELSEWHERE, times=PER_NAME_AND_ADDRESS)
    assert door.wait() == 0


def test_a_name_tried_from_everywhere_is_bounded(door: Door) -> None:
    """Who guesses from many addresses gets no more than thirty tries a minute at one name."""
    for number in range(PER_NAME):
        door.guess(address=f"203.0.113.{number}")
    assert door.wait(address=ELSEWHERE) == 60
    assert door.wait("bob", ELSEWHERE) == 0


def test_an_address_that_tries_every_name_is_bounded(door: Door) -> None:
    """And still lets in who was let in there before."""
    door.enter("bob")
    for number in range(PER_ADDRESS):
        door.guess(f"name{number}")
    assert door.wait("carol") == 60
    assert door.wait("bob") == 0
    assert door.wait("carol", ELSEWHERE) == 0


def test_what_is_counted_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names and addresses come, memory holds so many of each; the oldest make room."""
    monkeypatch.setattr(throttle, "REMEMBERED", 100)
    for number in range(1000):
        door.throttle.begin(f"name{number}", f"10.0.{number // 250}.{number % 250}")
        door.enter(f"known{number}", f"10.1.{number // 250}.{number % 250}")
    kept = door.throttle
    assert {len(counter._counts) for counter in (kept._pairs, kept._names, kept._addresses)} == {100}
    assert len(kept._known) == 100


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_its_address_or_its_network(address: str, network: str) -> None:
    """The 2^64 addresses of one IPv6 network are one client."""
    assert network_of(address) == network
