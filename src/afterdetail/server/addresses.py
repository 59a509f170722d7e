"""Which addresses belong to the public internet.

The tables follow the IANA special-purpose address registries (RFC 6890 and what it cites). Python's
own ``is_global`` differs between the versions supported here.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata too
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's metadata at a public address
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""What is assigned for the public internet: no loopback, no link-local, no private networks."""

NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address, private ones included
        "3fff::/20",  # documentation
    )
)

NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address can be anyone's on the internet, and no machine's behind the firewall.

    IPv4 addresses inside IPv6 ones (mapped, NAT64) are judged as what they reach.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    inside = address in GLOBAL_UNICAST_V6
    return inside and not any(address in network for network in NOT_PUBLIC_V6)


def parse(text: str) -> IPv4Address | IPv6Address:
    """An address as the resolver writes it; a scope (``%eth0``) is left out.

    Raises:
        ValueError: it is none.
    """
    return ipaddress.ip_address(text.partition("%")[0])
