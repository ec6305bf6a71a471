"""The filter of system calls, run on every machine's numbers by a small interpreter of the kernel's filter code."""

from __future__ import annotations

import struct

import pytest

from services.runner.execution.isolated import seccomp, syscalls

ALLOWED, KILLED, REFUSED, UNKNOWN = 0x7FFF0000, 0x80000000, 0x50001, 0x50026
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
EVERYDAY = {
    "x86_64": {"read": 0, "mmap": 9, "clone": 56, "fork": 57, "execve": 59, "openat": 257, "sendmsg": 46, "futex": 202},
    "aarch64": {"read": 63, "mmap": 222, "clone": 220, "execve": 221, "openat": 56, "sendmsg": 211, "futex": 98},
}
both = pytest.mark.parametrize("machine", syscalls.MACHINES)


def verdict(machine: str, call: int, *arguments: int, architecture: int | None = None) -> int:
    """What the machine's filter answers to a call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", call, architecture or ARCHITECTURES[machine], 0, *padded)
    program = seccomp.program(machine)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x06:
                return value


@both
def test_everyday_calls_are_allowed(machine: str) -> None:
    """What every program needs passes."""
    for name, call in EVERYDAY[machine].items():
        assert verdict(machine, call) == ALLOWED, name


@both
def test_listed_calls_are_refused(machine: str) -> None:
    """Every number on the list is refused, whatever its arguments; its neighbours are not refused by mistake."""
    denied = set(syscalls.denied(machine))
    judged = {syscalls.number(name, machine) for name in syscalls._BY_ARGUMENT}
    assert not denied & judged
    for call in range(600):
        if call in denied:
            assert verdict(machine, call, 7, 7) == REFUSED
        elif call not in judged:
            assert verdict(machine, call, 7, 7) == ALLOWED


@both
def test_a_call_of_another_architecture_ends_the_process(machine: str) -> None:
    """A number of another table, of i386 or of x32, is never looked up in ours."""
    assert verdict(machine, 0, architecture=0x40000003) == KILLED
    assert verdict(machine, 0x40000000 | 39) == KILLED


@both
def test_some_calls_are_judged_by_their_arguments(machine: str) -> None:
    """Forks but no namespaces, connected pairs but no datagrams, own limits but nobody else's."""

    def of(name: str, *arguments: int) -> int:
        return verdict(machine, syscalls.number(name, machine), *arguments)

    assert of("clone3") == UNKNOWN
    assert [of("clone", 17), of("clone", 0x10000000 | 17), of("clone", 0x20000)] == [ALLOWED, REFUSED, REFUSED]
    assert [of("fcntl", 3, 1030), of("fcntl", 3, 6), of("fcntl", 3, 1026)] == [ALLOWED, REFUSED, REFUSED]
    assert [of("ioctl", 0, 0x5401), of("ioctl", 0, 0x5412), of("ioctl", 0, 0x541C)] == [ALLOWED, REFUSED, REFUSED]
    assert [of("socketpair", 1, 1 | 0x80000), of("socketpair", 1, 5)] == [ALLOWED, ALLOWED]
    assert [of("socketpair", 1, 2), of("socketpair", 1, 3), of("socketpair", 30, 1)] == [REFUSED] * 3
    assert [of("prlimit64", 0), of("prlimit64", 1), of("sched_setaffinity", 1)] == [ALLOWED, REFUSED, REFUSED]
    assert [of("setpriority", 0, 0), of("setpriority", 0, 1), of("setpriority", 2, 0)] == [ALLOWED, REFUSED, REFUSED]
    assert [of("ioprio_set", 1, 0), of("ioprio_set", 1, 1), of("ioprio_set", 3, 0)] == [ALLOWED, REFUSED, REFUSED]


def test_an_unknown_machine_has_no_filter() -> None:
    """Where the numbers are not known the level is not claimed."""
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        seccomp.program("riscv64")
