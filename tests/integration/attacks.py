"""Attacks, as submissions run them: each is the body of a function that returns what it got hold of, or raises OSError.

`level` is the lowest sandbox level that holds against it; `T` has the places and processes of this machine.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

LIMITED, FILTERED, ISOLATED, ACCOUNTED = 1, 2, 3, 4

PROLOGUE = """
import ctypes, ctypes.util, errno, fcntl, glob, json, mmap, os, resource, signal, socket, stat, struct, sys, time
import numpy as np
from pathlib import Path
T = {targets!r}
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == 'x86_64'
BOX = Path.cwd()

def call(function, *arguments):
    result, error = function(*arguments), ctypes.get_errno()
    if result >= 0:
        return result or 'done'
    if error in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        raise OSError(error, os.strerror(error))
    return 'the kernel looked into it: ' + os.strerror(error)

def syscall(x86, arm, *arguments):
    return call(libc.syscall, x86 if X86 else arm, *arguments)

def attempt_all(function, things):
    got = []
    for thing in things:
        try:
            got.append((thing, function(thing)))
        except OSError:
            pass
    return got

def attack():
{body}

class Classifier:
    def fit(self, X, y):
        self.classes = len(np.unique(y))
        try:
            got = attack()
        except (OSError, MemoryError) as error:
            got = None
            print('refused:', error)
        print('OPEN' if got else 'held', repr(got)[:500])
    def predict_proba(self, X):
        return np.full((len(X), self.classes), 1 / self.classes)
"""


@dataclass(frozen=True)
class Attack:
    """A body, and the lowest level that holds.

    `kills` when holding means that the kernel ends the process, `starves` when it ends one for want of memory.
    """

    body: str
    level: int = FILTERED
    kills: bool = False
    starves: bool = False
    needs: str = ""

    def code(self, targets: dict[str, object]) -> str:
        """The submission."""
        return PROLOGUE.format(targets=targets, body=textwrap.indent(textwrap.dedent(self.body).strip("\n"), "    "))


def reads(*paths: str) -> str:
    """Read any of these."""
    return f"return attempt_all(lambda path: open(path, 'rb').read(100) or 'empty', [{', '.join(paths)}])"


def opens_socket(arguments: str, then: str = "return s") -> str:
    """Make a socket and use it."""
    return f"s = socket.socket({arguments})\ns.settimeout(2)\n{then}"


FILES = {
    "the environment of the first process": Attack(reads("'/proc/1/environ'")),
    "the environment of the parent": Attack(
        reads("f'/proc/{os.getppid()}/environ'", "f'/proc/{T[\"runner\"]}/environ'")
    ),
    "the command line of the runner": Attack(reads("f'/proc/{T[\"runner\"]}/cmdline'")),
    "the memory of the zygote": Attack(reads("f'/proc/{os.getppid()}/mem'", "f'/proc/{os.getppid()}/maps'")),
    "the memory of the runner": Attack(reads("f'/proc/{T[\"runner\"]}/mem'", "f'/proc/{T[\"runner\"]}/maps'")),
    "the descriptors of the runner": Attack(
        "return attempt_all(os.listdir, [f'/proc/{pid}/fd' for pid in (T['runner'], os.getppid())])"
    ),
    "the blobs": Attack(reads("T['blob']")),
    "the passwords of the stack": Attack(reads("T['connection']")),
    "the passwords of the machine": Attack(reads("'/etc/shadow'", "'/etc/passwd'", "'/root/.ssh/id_rsa'")),
    "the platform's own code": Attack(reads("T['code']")),
    "what folders contain": Attack(
        "return attempt_all(os.listdir, ['/', '/tmp', '/etc', '/root', '/home', '/proc', '/sys', T['folder']])"
    ),
    "other boxes": Attack(
        """
        others = [BOX.parent / str(n) for n in range(8) if BOX.parent / str(n) != BOX]
        return attempt_all(os.listdir, others) + attempt_all(lambda box: (box / 'x').write_text('x'), others)
        """
    ),
    "what hidden files are called": Attack(
        "return [path for path in ('/etc/passwd', T['blob']) if os.path.exists(path)]", ISOLATED
    ),
    "the times and modes of hidden files": Attack(
        "return attempt_all(lambda path: os.utime(path) or os.chmod(path, 0o777) or 'done', [T['victim']])", ISOLATED
    ),
    "writing to shared folders": Attack(
        """
        folders = ['/tmp', '/var/tmp', '/dev/shm', '/', '/root', '/run', T['folder'], str(BOX.parent)]
        return attempt_all(lambda folder: Path(folder, 'datarun-attack').write_text('x'), folders)
        """
    ),
    "changing a library": Attack(
        "return attempt_all(lambda path: open(path, 'ab'), [np.__file__, T['code'], json.__file__, '/usr/bin/env'])"
    ),
    "overwriting a hidden file": Attack(
        "return attempt_all(lambda how: open(T['victim'], how), ['wb', 'ab', 'r+b']) + attempt_all(os.truncate, [])"
    ),
    "deleting a hidden file": Attack("os.unlink(T['victim']); return 'gone'"),
    "renaming a hidden file": Attack("os.rename(T['victim'], 'mine'); return 'moved'"),
    "a hard link to a hidden file": Attack("os.link(T['victim'], 'mine'); return open('mine').read()"),
    "a symbolic link out of the box": Attack(
        "os.symlink(T['blob'], 'blob'); os.symlink('/', 'root')\n" + reads("'blob'", "'root/etc/passwd'")
    ),
    "a device of one's own": Attack("os.mknod('mem', stat.S_IFCHR | 0o600, os.makedev(1, 1)); return 'made'", LIMITED),
    "giving a file away": Attack("Path('x').touch(); os.chown('x', 12345, 12345); return 'given'", LIMITED),
    "a handle of a file": Attack(
        "return syscall(303, 264, -100, b'/usr', ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128)), "
        "ctypes.byref(ctypes.c_int()), 0)"
    ),
    "descriptors left open": Attack("return attempt_all(os.fstat, range(4, 200))", LIMITED),
    "secrets in the environment": Attack(
        "return [name for name in os.environ if name.startswith(('DATARUN', 'PG'))]", LIMITED
    ),
}
NETWORK = {
    "TCP to a server": Attack(opens_socket("socket.AF_INET", "s.connect(('127.0.0.1', T['tcp'])); return s")),
    "a TCP server": Attack(opens_socket("socket.AF_INET", "s.bind(('127.0.0.1', 0)); s.listen(); return s")),
    "UDP": Attack(opens_socket("socket.AF_INET, socket.SOCK_DGRAM", "return s.sendto(b'x', ('127.0.0.1', T['tcp']))")),
    "IPv6": Attack(opens_socket("socket.AF_INET6")),
    "a unix socket": Attack(opens_socket("socket.AF_UNIX", "s.connect(T['unix']); return s")),
    "an abstract unix socket": Attack(opens_socket("socket.AF_UNIX", "s.connect(T['abstract']); return s")),
    "a datagram from one end of a pair": Attack(
        "s, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); return s.sendto(b'x', T['datagrams'])"
    ),
    "netlink": Attack(opens_socket("socket.AF_NETLINK, socket.SOCK_RAW")),
    "vsock": Attack(opens_socket("40, socket.SOCK_STREAM")),
    "raw packets": Attack(opens_socket("socket.AF_PACKET, socket.SOCK_RAW"), LIMITED),
    "the kernel's ciphers": Attack(opens_socket("38, socket.SOCK_SEQPACKET")),
}
PROCESSES = {
    "tracing the parent": Attack("return call(libc.ptrace, 16, os.getppid(), 0, 0)"),
    "tracing the runner": Attack("return call(libc.ptrace, 0x4206, T['runner'], 0, 0)"),
    "tracing a child": Attack(
        """
        if (pid := os.fork()) == 0:
            time.sleep(5)
        try:
            return call(libc.ptrace, 16, pid, 0, 0)
        finally:
            os.kill(pid, signal.SIGKILL)
        """
    ),
    "reading memory across processes": Attack(
        """
        buffer = ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
        return attempt_all(lambda pid: syscall(310, 270, pid, vector, 1, vector, 1, 0), [os.getppid(), T['runner']])
        """
    ),
    "writing memory across processes": Attack(
        """
        buffer = ctypes.create_string_buffer(8)
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
        return syscall(311, 271, os.getppid(), vector, 1, vector, 1, 0)
        """
    ),
    "signals to the zygote": Attack("os.kill(os.getppid(), 0); return 'reached'"),
    "signals to the runner": Attack("os.kill(T['runner'], 0); return 'reached'"),
    "a handle of the zygote": Attack("return os.pidfd_open(os.getppid())"),
    "the limits of the zygote": Attack("return resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)"),
    "the priority of the zygote": Attack("os.setpriority(os.PRIO_PROCESS, os.getppid(), 19); return 'slowed'"),
    "the processors of the zygote": Attack("os.sched_setaffinity(os.getppid(), {0}); return 'moved'"),
    "500 forks": Attack(
        """
        made = 0
        for _ in range(500):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            made += 1
        return made
        """,
        needs="own_uid",
    ),
    "more memory than allowed": Attack("return len(np.ones(6 << 27))", LIMITED),
    "a thousand files of a megabyte": Attack(
        "[Path(f'f{n}').write_bytes(bytes(1 << 20)) for n in range(100)]; return 'written'", ISOLATED
    ),
    "a large file": Attack("signal.signal(25, signal.SIG_IGN); return Path('f').write_bytes(bytes(64 << 20))", LIMITED),
}
KERNEL = {
    "a user namespace": Attack("return call(libc.unshare, 0x10000000)"),
    "a mount namespace": Attack("return call(libc.unshare, 0x20000)", LIMITED),
    "a clone into a user namespace": Attack(
        """
        pid = syscall(56, 220, 0x10000000 | 17, 0, 0, 0, 0)
        if pid == 'done': os._exit(0)
        return pid
        """
    ),
    "entering a namespace": Attack("return call(libc.setns, os.open('/proc/self/ns/net', os.O_RDONLY), 0)", LIMITED),
    "a mount": Attack("return call(libc.mount, b'none', str(BOX).encode(), b'tmpfs', 0, None)", LIMITED),
    "an unmount": Attack("return call(libc.umount2, str(BOX).encode(), 2)", LIMITED),
    "the new mount interface": Attack("return syscall(430, 430, b'tmpfs', 0)", LIMITED),
    "another root": Attack("os.chroot('.'); return 'changed'", LIMITED),
    "the key rings": Attack("return syscall(250, 219, 0, -3, 1)"),
    "a new key": Attack("return syscall(248, 217, b'user', b'datarun', b'x', 1, -3)"),
    "io_uring": Attack("return syscall(425, 425, 4, ctypes.create_string_buffer(256))"),
    "a program in the kernel": Attack("return syscall(321, 280, 0, ctypes.create_string_buffer(128), 128)"),
    "performance counters": Attack(
        """
        attributes = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 1) + bytes(112))
        return syscall(298, 241, attributes, 0, -1, -1, 0)
        """
    ),
    "userfaultfd": Attack("return syscall(323, 282, 1)"),
    "shared memory of System V": Attack("return call(libc.shmget, 0xDA7A, 4096, 0o1666) or 'made'"),
    "semaphores of System V": Attack("return call(libc.semget, 0xDA7A, 1, 0o1666) or 'made'"),
    "message queues of System V": Attack("return call(libc.msgget, 0xDA7A, 0o1666) or 'made'"),
    "message queues of POSIX": Attack("return syscall(240, 180, b'datarun', 0o102, 0o666, None)"),
    "a lock on a library": Attack("return fcntl.flock(open(np.__file__), fcntl.LOCK_SH) or 'locked'"),
    "a record lock on a library": Attack("return fcntl.lockf(open(np.__file__), fcntl.LOCK_SH) or 'locked'"),
    "a lease": Attack("Path('f').touch(); return fcntl.fcntl(open('f'), 1024, fcntl.F_RDLCK) or 'leased'"),
    "typing into a terminal": Attack(
        """
        try:
            return fcntl.ioctl(1, 0x5412, b'x') or 'typed'
        except OSError as error:
            return error.errno != errno.EPERM
        """
    ),
    "clone3": Attack(
        """
        libc.syscall(435, ctypes.create_string_buffer(88), 88)
        return ctypes.get_errno() != errno.ENOSYS
        """
    ),
    "another execution domain": Attack("return call(libc.personality, 0x0040000)"),
    "the kernel's log": Attack("return call(libc.klogctl, 3, ctypes.create_string_buffer(100), 100)", LIMITED),
    "the clock": Attack("time.clock_settime(0, time.time()); return 'set'", LIMITED),
    "the host's name": Attack("return call(libc.sethostname, b'x', 1)", LIMITED),
    "another user": Attack("os.setuid(os.getuid() + 1); return 'changed'", LIMITED),
    "a call of x32": Attack("return libc.syscall(0x40000000 | 39)", kills=True, needs="x86_64"),
    "a call of i386": Attack(
        """
        memory = mmap.mmap(-1, 4096, prot=7)
        memory.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
        return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
        """,
        kills=True,
        needs="x86_64",
    ),
}
RESOURCES = {
    "more memory in all than one process may have": Attack(
        """
        for _ in range(8):
            if os.fork() == 0:
                block = np.ones(200 << 17)
                time.sleep(20)
                os._exit(0)
        [os.wait() for _ in range(8)]
        return 'taken'
        """,
        ACCOUNTED,
        starves=True,
    ),
    "memory files beyond the memory": Attack(
        """
        files = [os.memfd_create('x') for _ in range(60)]
        return [os.write(file, bytes(30 << 20)) for file in files]
        """,
        ACCOUNTED,
        starves=True,
    ),
    "processes beyond those of the user": Attack(
        """
        made = 0
        for _ in range(100):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            made += 1
        return made
        """,
        ACCOUNTED,
    ),
    "leaving the control group": Attack(
        """
        places = ['/sys/fs/cgroup', '/sys/fs/cgroup/memory', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/unified']
        files = [f'{place}/{name}' for place in places for name in ('tasks', 'cgroup.procs')]
        return attempt_all(lambda file: open(file, 'w').write(str(os.getpid())), files)
        """
    ),
    "a group of one's own": Attack(
        """
        places = ['/sys/fs/cgroup', '/sys/fs/cgroup/memory', '/sys/fs/cgroup/unified']
        return attempt_all(lambda place: os.mkdir(f'{place}/datarun-attack') or 'made', places)
        """
    ),
    "mounting the control groups": Attack(
        "return call(libc.mount, b'none', str(BOX).encode(), b'cgroup', 0, b'memory') "
        "or call(libc.mount, b'none', str(BOX).encode(), b'cgroup2', 0, None)",
        LIMITED,
    ),
    "a raised limit": Attack(
        """
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (1 << 40, 1 << 40))
        except ValueError as error:
            raise OSError(str(error))
        return 'raised'
        """,
        LIMITED,
    ),
    "threads without end": Attack(
        """
        import threading
        try:
            for n in range(200):
                threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        except RuntimeError as error:
            raise OSError(str(error))
        return n
        """,
        ACCOUNTED,
    ),
}
PRIVILEGES = {
    "a module for the kernel": Attack("return syscall(175, 105, b'', 0, b'')", LIMITED),
    "another kernel": Attack("return syscall(246, 104, 0, 0, 0, 0)", LIMITED),
    "a swap file": Attack("return call(libc.swapon, b'x', 0)", LIMITED),
    "a restart of the machine": Attack("return syscall(169, 142, 0, 0, 0, 0)", LIMITED),
    "accounts of all processes": Attack("return call(libc.acct, b'x')", LIMITED),
    "hanging up the terminal": Attack("return call(libc.vhangup)", LIMITED),
    "a pivot of the root": Attack("return syscall(155, 41, b'.', b'.')", LIMITED),
    "opening a file by its handle": Attack(
        "return syscall(304, 265, -100, ctypes.create_string_buffer(struct.pack('Ii', 8, 1) + bytes(8)), 0)", LIMITED
    ),
    "hearing of every opened file": Attack("return syscall(300, 262, 4, 0)", LIMITED),
    "other groups": Attack("os.setgroups([0, 1]); return 'changed'", LIMITED),
    "another group": Attack("os.setgid(os.getgid() + 1); return 'changed'", LIMITED),
    "another user for files": Attack("libc.setfsuid(12345); return libc.setfsuid(-1) == 12345", LIMITED),
    "capabilities again": Attack(
        """
        head = ctypes.create_string_buffer(struct.pack('Ii', 0x20080522, 0))
        return syscall(126, 91, head, ctypes.create_string_buffer(struct.pack('6I', 1 << 21, 1 << 21, 0, 0, 0, 0)))
        """,
        LIMITED,
    ),
    "ambient capabilities": Attack("return call(libc.prctl, 47, 2, 21, 0, 0)", LIMITED),
    "secure bits": Attack("return call(libc.prctl, 28, 0x2f, 0, 0, 0)", LIMITED),
    "new privileges": Attack(
        """
        if libc.prctl(38, 0, 0, 0, 0) != 0 and libc.prctl(39, 0, 0, 0, 0) == 1:
            raise OSError('they stay out of reach')
        return 'to be had'
        """,
        LIMITED,
    ),
    "capabilities of a file": Attack(
        """
        Path('f').touch()
        os.setxattr('f', 'security.capability', struct.pack('<IIIII', 0x2000001, 1 << 21, 0, 0, 0))
        return 'set'
        """,
        LIMITED,
    ),
    "trusted attributes": Attack("Path('f').touch(); os.setxattr('f', 'trusted.x', b'x'); return 'set'", LIMITED),
    "precedence over others": Attack("os.setpriority(os.PRIO_PROCESS, 0, -5); return 'taken'", LIMITED),
    "real-time scheduling": Attack(
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); return 'taken'", LIMITED
    ),
    "precedence at the disk": Attack("return syscall(251, 30, 1, 0, 1 << 13)", LIMITED),
    "the calendar": Attack("return call(libc.settimeofday, struct.pack('qq', int(time.time()), 0), None)", LIMITED),
    "the domain's name": Attack("return call(libc.setdomainname, b'x', 1)", LIMITED),
    "more open files than allowed": Attack(
        """
        copies = []
        try:
            for _ in range(100_000):
                copies.append(os.dup(0))
        finally:
            for copy in copies:
                os.close(copy)
        return 'opened'
        """,
        LIMITED,
    ),
    **{
        f"a raised limit of {what}": Attack(
            f"""
            try:
                resource.setrlimit(resource.{limit}, (1 << 40, 1 << 40))
            except ValueError as error:
                raise OSError(str(error))
            return 'raised'
            """,
            LIMITED,
        )
        for what, limit in {
            "a file's size": "RLIMIT_FSIZE",
            "processes": "RLIMIT_NPROC",
            "open files": "RLIMIT_NOFILE",
            "core dumps": "RLIMIT_CORE",
        }.items()
    },
}
ATTACKS = FILES | NETWORK | PROCESSES | KERNEL | RESOURCES | PRIVILEGES
