"""`datarun runner --list list_runners.txt [--host NAME]`: the options that the line of this host stands for."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path


def listed(arguments: list[str]) -> list[str]:
    """Return a runner's arguments with --list and --host replaced by the line; what is given by hand wins."""
    parser = argparse.ArgumentParser(prog="datarun runner", add_help=False, allow_abbrev=False)
    parser.add_argument("--list", type=Path)
    parser.add_argument("--host")
    known, rest = parser.parse_known_args(arguments)
    if known.list is None:
        return arguments
    from datarun.runner_list import load_runners, runner_of

    names = [known.host] if known.host else own_names()
    return [*runner_of(load_runners(known.list), names).arguments(), *rest]


def own_names() -> list[str]:
    """Return this host's name, in full and short, and the addresses of its network interfaces."""
    import psutil

    name = socket.gethostname()
    addresses = [
        address.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return [name, name.partition(".")[0], *addresses]
