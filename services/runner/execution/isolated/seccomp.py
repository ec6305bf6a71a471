"""The filter of system calls, in the kernel's filter code: a list to refuse, and a few calls judged by their arguments.

Calls of another architecture or of x32, whose numbers mean something else, end the process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from .syscalls import MACHINES, denied, number

_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_REFUSE, _UNKNOWN = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_CALL, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NAMESPACE_FLAGS = 0x7E020000
_LOCKS_AND_LEASES = (6, 7, 37, 38, 1024, 1026)
"""F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE, F_NOTIFY: signs between folds on files all can read."""
_TERMINAL_INPUT = (0x5412, 0x541C, 0x541D, 0x5423)
"""TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD: writing into, or through, a terminal that others use."""
_SOCKET_TYPE = 0xF
_OWN_LIMITS = ("prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
"""Calls whose first argument is a process, 0 for oneself: no right but the user keeps them off the zygote's limits."""
_OWN_PRIORITY = (("setpriority", 0), ("ioprio_set", 1))
"""Calls whose first argument says what the second one is, and which value means a process."""
Code = list[bytes]


def program(machine: str | None = None) -> bytes:
    """Return the filter for a machine, by default this one; raises OSError for one whose calls are not listed."""
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    return b"".join(
        [
            _step(_LOAD, _ARCHITECTURE),
            *_unless_any([_ARCHITECTURES[machine]], _KILL),
            _step(_LOAD, _CALL),
            _step(_AT_LEAST, _X32, no=1),
            _step(_RETURN, _KILL),
            *_when_any(denied(machine), _REFUSE),
            *_when_any([number("clone3", machine)], _UNKNOWN),
            *_judge(number("clone", machine), [_argument(0), *_when_flagged(_NAMESPACE_FLAGS, _REFUSE)]),
            *_judge(number("fcntl", machine), [_argument(1), *_when_any(_LOCKS_AND_LEASES, _REFUSE)]),
            *_judge(number("ioctl", machine), [_argument(1), *_when_any(_TERMINAL_INPUT, _REFUSE)]),
            *_judge(number("socketpair", machine), _connected_pairs_only()),
            *_only_on_oneself(machine),
            _step(_RETURN, _ALLOW),
        ]
    )


def _connected_pairs_only() -> Code:
    """Refuse datagram pairs: with such a socket messages can be sent to any address."""
    return [
        _argument(0),
        *_unless_any([socket.AF_UNIX], _REFUSE),
        _argument(1),
        _step(_AND, _SOCKET_TYPE),
        *_unless_any([socket.SOCK_STREAM, socket.SOCK_SEQPACKET], _REFUSE),
    ]


def _only_on_oneself(machine: str) -> Code:
    code: Code = []
    for name in _OWN_LIMITS:
        code += _judge(number(name, machine), [_argument(0), *_unless_any([0], _REFUSE)])
    for name, process in _OWN_PRIORITY:
        body = [_argument(0), *_unless_any([process], _REFUSE), _argument(1), *_unless_any([0], _REFUSE)]
        code += _judge(number(name, machine), body)
    return code


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """Return one instruction; the steps to skip are counted from the next one."""
    return struct.pack("=HBBI", code, yes, no, value)


def _argument(position: int) -> bytes:
    """Load the lower half of an argument; the kernel reads no more of those that are judged."""
    return _step(_LOAD, _ARGUMENTS + 8 * position)


def _when_any(values: Sequence[int], verdict: int) -> Code:
    last = len(values) - 1
    tests = [_step(_EQUAL, value, yes=last - at, no=int(at == last)) for at, value in enumerate(values)]
    return [*tests, _step(_RETURN, verdict)]


def _unless_any(values: Sequence[int], verdict: int) -> Code:
    tests = [_step(_EQUAL, value, yes=len(values) - at) for at, value in enumerate(values)]
    return [*tests, _step(_RETURN, verdict)]


def _when_flagged(mask: int, verdict: int) -> Code:
    return [_step(_ANY_BIT, mask, no=1), _step(_RETURN, verdict)]


def _judge(call: int, body: Code) -> Code:
    """Run the body for one call only, then go on with the call's number."""
    return [_step(_EQUAL, call, no=len(body) + 1), *body, _step(_LOAD, _CALL)]
