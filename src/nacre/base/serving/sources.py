"""Whom a request is from, as far as it costs something to be another: what is shared out is shared among these."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Of an IPv6 address this much is given out at once: whoever has one of these networks has all its addresses.
_NETWORK = 64
#: An address with the port that some balancers add.
_WITH_PORT = re.compile(r"\[([^]]*)\](?::\d+)?|([\d.]+):\d+")
#: So many of X-Forwarded-For are looked at, the last ones.
_HOPS = 10


def source_of(address: str) -> str:
    """The client's address; of IPv6 its network. What is no address stays as it is."""
    return address if (ip := _address(address)) is None else _shared(ip)


def _shared(ip: Address) -> str:
    return str(ip if ip.version == 4 else ipaddress.ip_network((int(ip), _NETWORK), strict=False))


def _address(text: str) -> Address | None:
    """One spelling for each: IPv4 is named as such, also by a socket for both, and a network interface is not."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ip if ip.version == 4 else ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))


class Balancers:
    """Those before a server, which say whom a request is from. given: their addresses and networks. Raises ValueError
    for what is neither, and for a network of everybody."""

    def __init__(self, given: Iterable[str] = ()):
        self._networks = [_network(each) for each in given]

    def __contains__(self, source: str) -> bool:
        return bool(self._networks) and (ip := _address(source)) is not None and self._has(ip)

    def source(self, address: str) -> str:
        """Whose a connection from there is: a balancer is nobody's but its own."""
        ip = _address(address)
        return address if ip is None else str(ip) if self._has(ip) else _shared(ip)

    def sender(self, source: str, said: Sequence[bytes]) -> str:
        """Whose a request is that a balancer passes on. said: its X-Forwarded-For, to which each balancer adds from
        whom it has it. What is no address there counts not: the request is the balancer's itself."""
        for text in reversed(b",".join(said).decode("latin-1").rsplit(",", _HOPS)[-_HOPS:]):
            with_port = _WITH_PORT.fullmatch(text.strip())
            ip = _address(with_port[1] or with_port[2] or "" if with_port else text.strip())
            if ip is None:
                break
            if not self._has(ip):
                return _shared(ip)
            source = str(ip)
        return source

    def _has(self, ip: Address) -> bool:
        return any(ip in network for network in self._networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        found = ipaddress.ip_network(text.replace("%", "?"))  # which interface it is on counts nowhere
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is no address and no network" + (
            ": it has host bits set" if "host bits" in str(error) else "")) from None
    if found.prefixlen == 0:
        raise ValueError(f"{text[:80]!r} is everybody")
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        first = found.network_address.ipv4_mapped
        return found if first is None else ipaddress.IPv4Network((first, found.prefixlen - 96))
    return found


class Shares(Generic[T]):
    """Things by whom they are from, each's in the order in which they came; and who has the most."""

    def __init__(self) -> None:
        self._each: dict[str, dict[T, None]] = {}
        self._having: dict[int, dict[str, None]] = {}  # so many -> who has them, who has had them longest first
        self.total = 0

    def add(self, who: str, one: T) -> None:
        """One more, the newest."""
        mine = self._each.setdefault(who, {})
        mine[one] = None
        self._count(who, len(mine) - 1, len(mine))

    def remove(self, who: str, one: T) -> None:
        """It counts no more, if it did."""
        mine = self._each.get(who, {})
        if one in mine:
            del mine[one]
            self._count(who, len(mine) + 1, len(mine))
            if not mine:
                del self._each[who]

    def oldest(self, who: str) -> T:
        """Of that one's, of which there are some."""
        return next(iter(self._each[who]))

    def newest(self, who: str) -> T:
        """Of that one's, of which there are some."""
        return next(reversed(self._each[who]))

    def count(self, who: str) -> int:
        """How many are of that one."""
        return len(self._each.get(who, ()))

    def greatest(self) -> str:
        """Who has the most; of several the one that came to have so many last."""
        return next(reversed(self._having[max(self._having)]))

    def _count(self, who: str, was: int, now: int) -> None:
        self.total += now - was
        if was:
            del self._having[was][who]
            if not self._having[was]:
                del self._having[was]
        if now:
            self._having.setdefault(now, {})[who] = None
