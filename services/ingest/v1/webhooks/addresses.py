"""Which addresses webhooks may be sent to: public ones, and those of networks that were named. Pure.

An address is judged when a connection to it is made, so a name that means another address by then is no way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from datarun.settings import Networks

Address = IPv4Address | IPv6Address

_TRANSLATED = IPv6Network("64:ff9b::/96")
_NEVER = (ip_network("168.63.129.16/32"), ip_network("192.0.0.0/24"), ip_network("fec0::/10"))
"""What counts as public and is not: where virtual machines ask for their secrets, and old private ones."""


class NotAllowed(OSError):
    """The address is not one that webhooks may be sent to."""


def is_literal(host: str) -> bool:
    """Tell whether a URL's host is an address and no name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_allowed(text: str, networks: Networks) -> bool:
    """Tell whether an address may be connected to; one that carries another is as good as that one.

    Raises ValueError for what is no address.
    """
    address = ip_address(text.partition("%")[0])
    return all(_is_named(one, networks) or _is_public(one) for one in _meant(address))


def _meant(address: Address) -> Iterator[Address]:
    """Yield the address, or the IPv4 addresses that are reached through it."""
    carried: list[Address] = []
    if isinstance(address, IPv6Address):
        carried += [one for one in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if one is not None]
        if address in _TRANSLATED:
            carried.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    yield from carried or [address]


def _is_named(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def _is_public(address: Address) -> bool:
    is_special = address.is_multicast or address.is_reserved or _is_named(address, _NEVER)
    return address.is_global and not is_special
