"""What many hosts keep of the same thing, numbered as the network service numbers it: who is in the security groups
that rules here name, and where the ports of the networks here are.

What is heard counts only as far as it joins on to what is here: a difference from a later number than ours, or of
another era of the database, is a reason to ask, and changes nothing.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import structlog

from nacre.network.contract import MOST_ERAS, MOST_GROUPS, PlacedPort, Versions

log = structlog.get_logger()

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class Difference(Protocol[V_co]):
    """`GroupMembers`, or `NetworkPorts`."""

    @property
    def id(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def era(self) -> str: ...
    @property
    def since(self) -> int | None: ...
    @property
    def ports(self) -> Mapping[str, V_co]: ...


class _Kept(Generic[V]):
    def __init__(self) -> None:
        self.n, self.era, self.ports = 0, "", dict[str, V]()


class Keeper(Generic[V]):
    """Things of a kind by their ids, and what is known of the ports of each. doubts: how often there was reason to
    doubt what is here."""

    def __init__(self) -> None:
        self.doubts = 0
        self._kept: dict[str, _Kept[V]] = {}
        self._newer: dict[str, int] = {}  # the latest number of it that was said
        self._doubted: set[str] = set()

    def versions(self, ids: Collection[str] | None = None) -> Versions:
        """What is here, of all or of these. Of those that are left out everything is told again."""
        found: Versions = {}
        for id in self._kept if ids is None else self._kept.keys() & set(ids):
            known = self._kept[id]
            if known.n and (known.era in found or len(found) < MOST_ERAS):
                numbers = found.setdefault(known.era, {})
                if len(numbers) < MOST_GROUPS:
                    numbers[id] = known.n
        return found

    def numbers(self) -> dict[str, int]:
        """Up to which change each is known. As many as are named at once; the next time the others are."""
        some = list(self._kept)[:MOST_GROUPS]
        if len(some) < len(self._kept):
            self._kept |= {id: self._kept.pop(id) for id in some}
        return {id: self._kept[id].n for id in some}

    def apply_news(self, news: Iterable[Difference[V]]) -> None:
        """Differences that somebody sent: late, twice or in another order, it does not matter."""
        for each in news:
            known = self._kept.get(each.id)
            if known is None:
                continue  # nothing here needs it
            if each.era != known.era:
                self._doubted.add(each.id)
                self.doubts += 1
            elif each.since is not None and each.since <= known.n < each.n:
                self._write(each)
            else:
                self.note_newer({each.id: each.n})

    def apply(self, answer: Iterable[Difference[V]], asked: Collection[str] = (), *,
              doubts: int | None = None) -> None:
        """What was answered; what was asked for and is not in it is empty. doubts: how many there were when it was
        asked (None: as many as now): none that came since is taken away."""
        given, sure = set(), doubts in (None, self.doubts)
        for each in answer:
            known = self._kept.get(each.id)
            given.add(each.id)
            if known is None or known.era != each.era or known.n < each.n:  # else news came meanwhile
                if each.since is None:
                    self._drop(each.id)
                elif known is None or each.since > known.n:
                    self._doubted.add(each.id)
                    continue
                self._write(each)
            self._answered(each.id, sure=sure)
        for id in set(asked) - given:
            self._drop(id)
            self._kept[id] = _Kept()
            self._answered(id, sure=sure)
            self._newer.pop(id, None)

    def note_newer(self, numbers: Mapping[str, int]) -> None:
        """These changed up to those numbers, as somebody said: whoever has less is outdated."""
        for id, n in numbers.items():
            if id in self._kept:
                self._newer[id] = max(n, self._newer.get(id, 0))

    def take_newer(self, ids: Iterable[str]) -> dict[str, int]:
        """What was said of these by `note_newer`, which no longer counts: they are being asked for, and the answer
        contains it. Without an answer it is to be noted again."""
        return {id: self._newer.pop(id) for id in ids if id in self._newer}

    def doubt_all(self) -> None:
        """The database may have another history than it had: all must be asked for."""
        self._doubted |= self._kept.keys()
        self.doubts += 1

    def outdated(self, named: Collection[str]) -> set[str]:
        """Those of these that must be asked for."""
        return {id for id in named if id in self._doubted or (known := self._kept.get(id)) is None
                or self._newer.get(id, 0) > known.n}

    def has(self, named: Collection[str]) -> bool:
        """Whether anything was ever said of each of these."""
        return self._kept.keys() >= set(named)

    def keep_only(self, named: Collection[str]) -> None:
        """The others go: nothing here needs them any more."""
        for id in self._kept.keys() - set(named):
            self._drop(id)
            self._newer.pop(id, None)
            self._doubted.discard(id)

    def _write(self, news: Difference[V]) -> None:
        known = self._kept.setdefault(news.id, _Kept())
        for port, said in news.ports.items():
            now, before = self._read(said), known.ports.pop(port, None)
            if now is not None:
                known.ports[port] = now
            if now != before:
                self._changed(news.id, port, before, now)
        known.n, known.era = news.n, news.era

    def _answered(self, id: str, *, sure: bool) -> None:
        (self._doubted.discard if sure else self._doubted.add)(id)

    def _drop(self, id: str) -> None:
        if known := self._kept.pop(id, None):
            for port, before in known.ports.items():
                self._changed(id, port, before, None)

    def _read(self, said: V) -> V | None:
        """What is kept of that; None: nothing."""
        raise NotImplementedError

    def _changed(self, id: str, port: str, before: V | None, now: V | None) -> None:
        """What is kept of a port of a thing is another."""
        raise NotImplementedError


class Members(Keeper[tuple[str, ...]]):
    """Of groups: the CIDRs of each port. changed: CIDRs that are not in the groups that they were in when somebody last
    looked (and took them out)."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = set[str]()
        self._groups_with: dict[str, dict[str, int]] = {}  # CIDR -> group -> how many of its ports have it

    def cidrs(self, group: str) -> set[str]:
        """The CIDRs of its members."""
        known = self._kept.get(group)
        return {cidr for cidrs in known.ports.values() for cidr in cidrs} if known else set()

    def groups_with(self, cidr: str) -> Iterable[str]:
        """The groups with such a member."""
        return self._groups_with.get(cidr, ())

    def _read(self, said: tuple[str, ...]) -> tuple[str, ...] | None:
        return tuple(c for each in said if (c := _network(each))) or None

    def _changed(self, id: str, port: str, before: tuple[str, ...] | None, now: tuple[str, ...] | None) -> None:
        self._count(id, before or (), -1)
        self._count(id, now or (), 1)

    def _count(self, group: str, cidrs: Iterable[str], by: int) -> None:
        for cidr in cidrs:
            holders = self._groups_with.setdefault(cidr, {})
            holders[group] = now = holders.get(group, 0) + by
            if now in (0, 1):  # gone, or new
                self.changed.add(cidr)
            if not holders[group]:
                del holders[group]
            if not holders:
                del self._groups_with[cidr]


class Places(Keeper[PlacedPort]):
    """Of networks: where each port is. changed: (network, port) of which somebody who takes them out has not heard."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = set[tuple[str, str]]()

    def of(self, network: str) -> Mapping[str, PlacedPort]:
        """The ports of a network."""
        known = self._kept.get(network)
        return known.ports if known else {}

    def all(self) -> Iterator[tuple[str, PlacedPort]]:
        """(network, port) of every one."""
        return ((network, port) for network, known in self._kept.items() for port in known.ports.values())

    def _read(self, said: PlacedPort) -> PlacedPort | None:
        return said if said.host or said.prepared else None

    def _changed(self, id: str, port: str, before: PlacedPort | None, now: PlacedPort | None) -> None:
        self.changed.add((id, port))


def _network(cidr: str) -> str | None:
    """As a flow names it; None: it is no address, and opens nothing."""
    try:
        return str(ipaddress.ip_network(cidr, strict=False))
    except ValueError as error:
        log.warning("member of a security group skipped", address=cidr, why=str(error))
        return None
