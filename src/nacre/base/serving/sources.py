"""Whom a request is from, as far as it costs something to be another: what is shared out is shared among these."""

import ipaddress

#: Of an IPv6 address this much is given out at once: whoever has one of these networks has all its addresses.
_NETWORK = 64


def source_of(address: str) -> str:
    """The client's address; of IPv6 its network. What is no address stays as it is."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:  # as a socket for both names IPv4
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), _NETWORK), strict=False))
