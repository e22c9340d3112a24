"""Whom a request is from, as far as it costs something to be another: what is shared out is shared among these."""

import ipaddress
from typing import Generic, TypeVar

T = TypeVar("T")

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
