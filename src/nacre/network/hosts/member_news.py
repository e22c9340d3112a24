"""Hosts hear who joined a security group that their rules name, and who left it.

What changes within some tens of milliseconds is read together, once for all hosts, and goes to each as one message. A
message says from which number on it is complete: a host that has missed something before that asks (members.py). One
that was lost is noticed with the host's next beat, which names the numbers it has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa
import structlog

from nacre.base.clock import Clock
from nacre.base.db import Database
from nacre.base.durable.changes import Change
from nacre.network.contract import MOST_GROUPS, GroupMembers
from nacre.network.hosts import members
from nacre.network.hosts.notices import Notices, naming

log = structlog.get_logger()

#: Changes of members that come together make one message (seconds); and what each message to a host costs the next
#: ones: a process sends no more than five hundred of them a second.
GATHER, EACH = 0.05, 0.002
#: Ports and CIDRs of one message: a host's door takes some four times as much.
MOST_IN_ONE = 20_000
#: Seconds between two looks for what is too old to be kept.
TRIM = 60.0


@dataclass(frozen=True)
class MemberNotice:
    """What a host is to hear: by group."""

    host: str
    groups: Mapping[str, GroupMembers]

    def message(self) -> tuple[GroupMembers, ...]:
        """What is sent: no more than a host takes at once. Of what is too much only the number, so that it asks."""
        found, room = [], MOST_IN_ONE
        for each in sorted(self.groups.values(), key=lambda each: len(each.ports))[:MOST_GROUPS]:
            room -= sum(1 + len(cidrs) for cidrs in each.ports.values())
            found.append(each if room >= 0 else msgspec.structs.replace(each, since=each.n, ports={}))
        return tuple(found)

    def then(self, other: "MemberNotice") -> "MemberNotice":
        """Both in one."""
        both = {group: joined(self.groups[group], other.groups[group])
                for group in self.groups.keys() & other.groups.keys()}
        return MemberNotice(self.host, {**self.groups, **other.groups, **both})


def joined(one: GroupMembers, other: GroupMembers) -> GroupMembers:
    """Both differences in one; where something lies between them, the later alone: who hears it sees the gap."""
    first, last = sorted((one, other), key=lambda each: each.n)
    if first.era != last.era or first.since is None or last.since is None or last.since > first.n:
        return last
    return msgspec.structs.replace(last, since=min(first.since, last.since), ports=first.ports | last.ports)


class MemberNews:
    """tell: a message to a host; only speed depends on it. last: the number of each group's last change, as far as this
    process has read."""

    def __init__(self, db: Database, clock: Clock, tell: Callable[[MemberNotice], Awaitable[None]] | None):
        self._db, self._clock, self._tell = db, clock, tell
        self._notices = Notices(tell)
        self._due: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._rest = 0.0  # until then nothing is sent
        self._last: dict[str, int] = {}

    def add(self, changed: Mapping[str, tuple[int, int]]) -> None:
        """Tell of these soon: group -> the number of the change before, and of this one."""
        if self._tell is None or not changed:
            return
        for group, (before, _) in changed.items():
            self._due[group] = min(before, self._due.get(group, before))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._due:
            await self._clock.sleep(max(GATHER, self._rest - self._clock.monotonic()))
            due, self._due = self._due, {}
            try:
                found = await self._db.read(lambda connection, due=due: _read(connection, due))  # type: ignore[misc]
            except Exception as error:  # hosts hear it with their next beat
                log.info("hosts do not hear of group members at once", groups=len(due), why=str(error))
                continue
            hosts: dict[str, dict[str, GroupMembers]] = {}
            for news, naming_it in found:
                for host in naming_it:
                    hosts.setdefault(host, {})[news.id] = news
            self._rest = self._clock.monotonic() + EACH * len(hosts)
            self._notices.add(MemberNotice(host, groups) for host, groups in hosts.items())

    def behind(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Of a host that has these: the numbers of the groups that have changed since."""
        return {group: last for group, n in versions.items() if (last := self._last.get(group, 0)) > n}

    async def changed(self, changes: Sequence[Change]) -> None:
        """A reader of changes: members changed, in whatever process."""
        after = changes[0].n - 1
        self._last |= await self._db.read(lambda connection: members.newer(connection, after))

    async def reload(self) -> None:
        """Everything anew."""
        self._last = await self._db.read(members.newer)

    async def run(self) -> None:
        """For ever: what is too old goes."""
        while True:
            await self._clock.sleep(TRIM)
            try:
                await self._db.run(members.trim)
            except Exception as error:
                log.info("changes of group members are not trimmed yet", why=str(error))


def _read(connection: sa.Connection, due: Mapping[str, int]) -> list[tuple[GroupMembers, set[str]]]:
    """What there is to say of each group, and to whom."""
    hosts = {group: found for group in due if (found := naming(connection, group))}
    return [(news, hosts[news.id]) for news in members.news(connection, {group: due[group] for group in hosts})]
