"""Who is in the security groups that rules here name, numbered as the network service numbers it.

What is heard counts only as far as it joins on to what is here: a difference from a later number than ours, or of
another era of the database, is a reason to ask, and changes nothing.
"""

import ipaddress
from collections.abc import Collection, Iterable, Mapping

import msgspec
import structlog

from nacre.network.contract import MOST_ERAS, MOST_GROUPS, GroupMembers, Versions

log = structlog.get_logger()


class _Group(msgspec.Struct):
    n: int = 0
    era: str = ""
    ports: dict[str, tuple[str, ...]] = {}


class Members:
    """changed: CIDRs that are not in the groups that they were in when somebody last looked (and took them out).
    doubts: how often there was reason to doubt what is here."""

    def __init__(self) -> None:
        self.changed, self.doubts = set[str](), 0
        self._groups: dict[str, _Group] = {}
        self._groups_with: dict[str, dict[str, int]] = {}  # CIDR -> group -> how many of its ports have it
        self._newer: dict[str, int] = {}  # group -> the latest number of it that was said
        self._doubted: set[str] = set()

    def versions(self, groups: Collection[str] | None = None) -> Versions:
        """What is here, of all groups or of these. Of those that are left out all members are told again."""
        found: Versions = {}
        for group in self._groups if groups is None else self._groups.keys() & set(groups):
            known = self._groups[group]
            if known.n and (known.era in found or len(found) < MOST_ERAS):
                numbers = found.setdefault(known.era, {})
                if len(numbers) < MOST_GROUPS:
                    numbers[group] = known.n
        return found

    def numbers(self) -> dict[str, int]:
        """group -> up to which change it is known. As many as are named at once; the next time the others are."""
        some = list(self._groups)[:MOST_GROUPS]
        if len(some) < len(self._groups):
            self._groups |= {group: self._groups.pop(group) for group in some}
        return {group: self._groups[group].n for group in some}

    def apply_news(self, news: Iterable[GroupMembers]) -> None:
        """Differences that somebody sent: late, twice or in another order, it does not matter."""
        for each in news:
            known = self._groups.get(each.id)
            if known is None:
                continue  # no rule here names it
            if each.era != known.era:
                self._doubted.add(each.id)
                self.doubts += 1
            elif each.since is not None and each.since <= known.n < each.n:
                self._write(each)
            else:
                self.note_newer({each.id: each.n})

    def apply(self, answer: Iterable[GroupMembers], asked: Collection[str] = (), *, doubts: int | None = None) -> None:
        """What the network service answered. Of a group that was asked for and is not in it there are no members.
        doubts: how many there were when it was asked (None: as many as now); it takes away none that came since."""
        given, sure = set(), doubts in (None, self.doubts)
        for each in answer:
            known = self._groups.get(each.id)
            given.add(each.id)
            if known is not None and known.era == each.era and known.n >= each.n:
                pass  # meanwhile news came
            elif each.since is None:
                self._drop(each.id)
                self._write(each)
            elif known is not None and each.since <= known.n:
                self._write(each)
            else:
                self._doubted.add(each.id)
                continue
            self._answered(each.id, sure=sure)
        for group in set(asked) - given:
            self._drop(group)
            self._groups[group] = _Group()
            self._answered(group, sure=sure)
            self._newer.pop(group, None)

    def note_newer(self, numbers: Mapping[str, int]) -> None:
        """These changed up to those numbers, as somebody said: whoever has less is outdated."""
        for group, n in numbers.items():
            if group in self._groups:
                self._newer[group] = max(n, self._newer.get(group, 0))

    def take_newer(self, groups: Iterable[str]) -> dict[str, int]:
        """What was said of these by `note_newer`, which no longer counts: they are being asked for, and the answer
        contains it. Without an answer it is to be noted again."""
        return {group: self._newer.pop(group) for group in groups if group in self._newer}

    def doubt_all(self) -> None:
        """The database may have another history than it had: all must be asked for."""
        self._doubted |= self._groups.keys()
        self.doubts += 1

    def outdated(self, named: Collection[str]) -> set[str]:
        """Those of these groups that must be asked for."""
        return {group for group in named if group in self._doubted or (known := self._groups.get(group)) is None
                or self._newer.get(group, 0) > known.n}

    def keep_only(self, named: Collection[str]) -> None:
        """The others go: no rule here names them any more."""
        for group in self._groups.keys() - set(named):
            self._drop(group)
            self._newer.pop(group, None)
            self._doubted.discard(group)

    def cidrs(self, group: str) -> set[str]:
        """The CIDRs of its members."""
        known = self._groups.get(group)
        return {cidr for cidrs in known.ports.values() for cidr in cidrs} if known else set()

    def groups_with(self, cidr: str) -> Iterable[str]:
        """The groups with such a member."""
        return self._groups_with.get(cidr, ())

    def _write(self, news: GroupMembers) -> None:
        known = self._groups.setdefault(news.id, _Group())
        for port, cidrs in news.ports.items():
            if (now := tuple(c for each in cidrs if (c := _network(each)))) != (before := known.ports.get(port, ())):
                self._count(news.id, before, -1)
                self._count(news.id, now, 1)
                known.ports.pop(port, None)
                if now:
                    known.ports[port] = now
        known.n, known.era = news.n, news.era

    def _answered(self, group: str, *, sure: bool) -> None:
        if sure:
            self._doubted.discard(group)
        else:
            self._doubted.add(group)

    def _drop(self, group: str) -> None:
        if known := self._groups.pop(group, None):
            for cidrs in known.ports.values():
                self._count(group, cidrs, -1)

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


def _network(cidr: str) -> str | None:
    """As a flow names it; None: it is no address, and opens nothing."""
    try:
        return str(ipaddress.ip_network(cidr, strict=False))
    except ValueError as error:
        log.warning("member of a security group skipped", address=cidr, why=str(error))
        return None
