"""Where a process answers RPC, and how others find it there."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Collection

from nacre.base.errors import BadRequest, NacreError

#: An address of documentation (RFC 5737, 3849): nobody is there, and nothing is sent to find out which way it would go.
_AFAR = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}

_ENDPOINT = re.compile(r"tcp://(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15}):([1-9][0-9]{0,4})\Z", re.ASCII)

#: "This network": none has an address of it, and some systems take it for their own.
_NOWHERE = ipaddress.ip_network("0.0.0.0/8")


class NoAddress(NacreError):
    """A name that cannot be resolved, or a machine that nobody can reach."""


def endpoint(host: str, port: int) -> str:
    """As ZeroMQ writes it. host: an address, or a name of one. Raises NoAddress."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no name"
            raise NoAddress(f"{host} is no address, and cannot be found by name: {why}.") from None
    return f"tcp://[{address}]:{port}" if address.version == 6 else f"tcp://{address}:{port}"


def checked(place: str, *, near: bool = True) -> str:
    """An endpoint that another process named: an address that one can be at, and a port. near: it may be on this very
    machine. Raises BadRequest."""
    if (found := _ENDPOINT.match(place)) and int(found[2]) < 1 << 16:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(found[1].strip("[]"))
            if (address.version == 6) == ("[" in found[1]) and _is_place(address, near):
                return place
    raise BadRequest(f"{place[:80]!r} is no place where a process {'' if near else 'of another machine '}answers: "
                     "it looks like tcp://192.0.2.7:8776.", field="endpoint")


def _is_place(address: ipaddress.IPv4Address | ipaddress.IPv6Address, near: bool) -> bool:
    """Whether a process can be reached there, from any machine or (near) from its own."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return near
    # What counts on one link only says nothing without the link; there lie the metadata of other people's clouds.
    return not (address.is_unspecified or address.is_multicast or address.is_link_local or address.is_reserved
                or address in _NOWHERE)


def host_of(place: str) -> str:
    """The address in an endpoint."""
    return place.removeprefix("tcp://").rpartition(":")[0].strip("[]")


def reachable(place: str, given: str = "") -> str:
    """The endpoint by which others reach who listens at `place`. given: the host to name, if the operator says so."""
    port = int(place.rpartition(":")[2])
    if given:
        return f"tcp://[{given}]:{port}" if ":" in given else f"tcp://{given}:{port}"
    listens = ipaddress.ip_address(host_of(place))
    return endpoint(outward(version=listens.version), port) if listens.is_unspecified else place


def outward(to: str = "", version: int = 4) -> str:
    """This machine's own address on the way to another (none named: to the world). Raises NoAddress."""
    if to:
        family, *_, where = socket.getaddrinfo(to, 9, type=socket.SOCK_DGRAM)[0]
    else:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        where = (_AFAR[family], 9)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(where)
            return str(probe.getsockname()[0])
        except OSError:
            found = sorted(a for a in machine_addresses() if ipaddress.ip_address(a).version == version
                           and not ipaddress.ip_address(a).is_loopback)
    if not found:
        raise NoAddress("This machine has no address that others reach: set rpc.listen or rpc.address.")
    return found[0]


def machine_addresses() -> Collection[str]:
    """All of the machine's own, now, but those that count on one link only."""
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        found = {str(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) for a in ip.get_addr()}
    return {a for a in found if not ipaddress.ip_address(a).is_link_local}
