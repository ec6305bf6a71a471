"""The system calls that Python's standard library does not wrap, by ctypes; each raises OSError when it is refused."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MOUNT_READ_ONLY, MOUNT_NOSUID = 1, 2
MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = (
    1,
    4,
    15,
    24,
    36,
    38,
)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_SYS_LANDLOCK_RULESET, _SYS_LANDLOCK_RULE, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _LANDLOCK_PATH_BENEATH = 1, 1
_FILTER_STEP_BYTES = 8
_SYS_PIVOT_ROOT, _SYS_CAPSET, _SYS_MOUNT_SETATTR = {
    "x86_64": (155, 126, 442),
    "aarch64": (41, 91, 442),
}.get(os.uname().machine, (-1, -1, -1))
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int, what: str) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), what)


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, "PR_SET_PDEATHSIG")


def rename(name: str) -> None:
    """Be shown under this name, of at most 15 bytes, in lists of processes."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def hide_memory() -> None:
    """Let no process of the same user trace this one or read its memory."""
    _prctl(_PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE")


def adopt_orphans() -> None:
    """Become the parent of every orphan among the descendants."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def refuse_privileges() -> None:
    """Gain no privilege by exec, for ever and for all descendants."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def drop_capabilities() -> None:
    """Give up every capability; the bounding set too, where this process may change it."""
    for capability in range(_CAPABILITIES):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # past the last one, or without the right to: no_new_privs already keeps them from coming back
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _checked(_libc.syscall(_SYS_CAPSET, header, bytes(24)), "capset")


def unshare(flags: int) -> None:
    """Leave the namespaces that the flags name for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system or, with MS_BIND, a folder or file at another place."""
    result = _libc.mount(
        source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(result, f"mount {target}")


def make_read_only(target: str, *, recursive: bool = True) -> None:
    """Make a mount, and all mounts below it, read-only and blind to set-user-id programs."""
    attributes = struct.pack("=QQQQ", MOUNT_READ_ONLY | MOUNT_NOSUID, 0, 0, 0)
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(len(attributes))
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, attributes, size)
    _checked(result, f"mount_setattr {target}")


def unmount(target: str) -> None:
    """Take a mount away at once; its memory goes with its last open file."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(folder: str) -> None:
    """Make a folder, which is a mount point, the root and forget the old one."""
    os.chdir(folder)
    _checked(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def filter_calls(program: bytes) -> None:
    """Submit every later system call, for ever and for all descendants, to a program of the kernel's filter machine."""
    prepared = _Filter(len(program) // _FILTER_STEP_BYTES, program)
    _checked(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prepared), 0, 0), "PR_SET_SECCOMP")


def landlock_abi() -> int:
    """Return which version of Landlock the kernel has, 0 for none."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)))


def landlock_ruleset(attributes: bytes) -> int:
    """Return a descriptor of a new set of rules that denies what the attributes name."""
    size = ctypes.c_size_t(len(attributes))
    return _checked(_libc.syscall(_SYS_LANDLOCK_RULESET, attributes, size, 0), "landlock_create_ruleset")


def landlock_allow(ruleset: int, place: int, rights: int) -> None:
    """Allow these rights below an open folder, or on an open file."""
    rule = struct.pack("=Qi", rights, place)
    _checked(_libc.syscall(_SYS_LANDLOCK_RULE, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0), "landlock_add_rule")


def landlock_restrict(ruleset: int) -> None:
    """Put this process, for ever and with all descendants, under the rules."""
    _checked(_libc.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
