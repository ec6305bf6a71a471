"""Where control groups are found, and what is read in their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.runner.execution.hierarchies import V1, V2, Gauge, own_folders

MOUNTS = """\
23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
CONTAINER = "35 31 0:32 /docker/ab12 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        (
            "4:memory:/jobs/7\n2:cpu,cpuacct:/\n1:name=systemd:/user\n0::/user\n",
            MOUNTS,
            {
                "memory": "/sys/fs/cgroup/memory/jobs/7",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "name=systemd": "/sys/fs/cgroup/systemd/user",
                "": "/sys/fs/cgroup/unified/user",
            },
        ),
        ("0::/system.slice/a.service\n", UNIFIED, {"": "/sys/fs/cgroup/system.slice/a.service"}),
        ("0::/\n", UNIFIED, {"": "/sys/fs/cgroup"}),
        ("4:memory:/docker/ab12/x\n", CONTAINER, {"memory": "/sys/fs/cgroup/memory/x"}),
        ("4:memory:/elsewhere\n", CONTAINER, {}),
        ("0::/../other\n", UNIFIED, {}),
        ("0::/\n", "", {}),
    ],
)
def test_own_groups_are_found(groups: str, mounts: str, expected: dict[str, str]) -> None:
    """Each controller's folder is below its mount; a group that is not mounted here is not guessed."""
    assert own_folders(groups, mounts) == {name: Path(path) for name, path in expected.items()}


@pytest.mark.parametrize(
    ("gauge", "text", "value"),
    [
        (V1.peak_mib, "3145728\n", 3),
        (V1.cpu_seconds, "2500000000\n", 2.5),
        (V1.oom_kills, "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4),
        (V2.peak_mib, "1048576\n", 1),
        (V2.cpu_seconds, "usage_usec 1500000\nuser_usec 9\nsystem_usec 9\n", 1.5),
        (V2.oom_kills, "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n", 2),
    ],
)
def test_a_number_is_read_in_its_unit(gauge: Gauge, text: str, value: float) -> None:
    """It is the one after its word, whatever stands before it."""
    assert gauge.value(text) == value


def test_a_file_without_the_number_is_no_zero() -> None:
    """A kernel that does not count it is found out when the group is made."""
    with pytest.raises(ValueError, match="substring not found"):
        V1.oom_kills.value("oom_kill_disable 0\nunder_oom 0\n")
