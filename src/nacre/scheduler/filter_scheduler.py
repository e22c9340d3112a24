"""Choosing hosts: every host there is, in its queue, and the one function that places servers on them.

Synchronous and in memory: between two awaits of the process a whole request is placed, so requests never see each
other half done.
"""

import random
from collections.abc import Collection, Iterable, Sequence
from uuid import uuid4

import msgspec

from nacre.base.errors import NoValidHost
from nacre.scheduler.contract import Allocation, HostReport, Placement, PlacementRequest
from nacre.scheduler.filters import ALL
from nacre.scheduler.host_queue import HostQueue
from nacre.scheduler.hosts import PENDING_SECONDS, Claim, Host, Kind, claim_of
from nacre.scheduler.reasons import explain
from nacre.scheduler.search import Search


class FilterScheduler:
    """Places servers on the hosts of its queues and keeps their free amounts up to date.

    driver: memory, cpu or disk first; sign: +1 packs, -1 spreads; best: the choice is random among so many (1: the
    best); filters: names out of `filters.py`.
    """

    def __init__(self, driver: str = "memory", sign: int = -1, best: int = 1, *,
                 filters: Iterable[str] = ALL, chance: random.Random | None = None):
        self._driver, self._sign, self._best, self._filters = driver, sign, best, tuple(filters)
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._queues: dict[str, HostQueue] = {}
        self._hosts: dict[str, Host] = {}
        #: Server -> the names of its hosts, of which it may have two; allocation -> its host's.
        self._where: dict[str, set[str]] = {}
        self._placed: dict[str, str] = {}
        self._nobody = HostQueue(driver)
        if unknown := set(self._filters) - set(ALL):
            raise KeyError(f"no such filters: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")

    def host(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def where(self, server_id: str) -> Collection[str]:
        """The hosts that a server has something of."""
        return self._where.get(server_id, ())

    def hear(self, report: HostReport, now: float) -> None:
        """A report of a host that is known (`add`), not older than its last. now: seconds, of a clock that does not go
        back."""
        host = self._hosts[report.host]
        before, queue = host.servers, self._queues[host.queue_name]
        if report.queue_name != host.queue_name:
            queue.discard(host)
            if not len(queue):  # a host may name another one in each report
                del self._queues[host.queue_name]
            host.hear(report, now)
            self._queue(host.queue_name).add(host)
        else:
            host.hear(report, now)
            queue.moved(host)
        self._moved(host, before)

    def add(self, report: HostReport, kind: Kind, out: str | None, allocations: Iterable[Allocation] = ()) -> None:
        """A new host, with what the database has on it."""
        host = self._hosts[report.host] = Host(report, kind, out)
        self._queue(host.queue_name).add(host)
        self._moved(host, set())
        for allocation in allocations:
            self.take(allocation)

    def take(self, allocation: Allocation) -> None:
        """The database has this allocation: another process may have placed it. Unknown hosts are ignored."""
        self._count(allocation.host, allocation.id, claim_of(allocation))

    def change(self, name: str, kind: Kind, out: str | None) -> None:
        """What an operator or time changed of a host: its kind (zone, aggregates), and why it takes no servers."""
        host = self._hosts[name]
        queue = self._queues[host.queue_name]
        if host.kind is not kind:
            host.kind = kind
            queue.set_kind(host)
        queue.set_out(host, out)

    def tidy(self) -> set[Kind]:
        """Queues without hosts are gone, and kinds that no host has. Which kinds there are."""
        self._queues = {name: queue for name, queue in self._queues.items() if len(queue)}
        return set[Kind]().union(*(queue.tidy() for queue in self._queues.values()))

    def clear(self) -> None:
        """No host is known any more."""
        for name in list(self._hosts):
            self.remove(name)

    def remove(self, name: str) -> None:
        """The host is gone; unknown ones are ignored."""
        if (host := self._hosts.pop(name, None)) is not None:
            self._queues[host.queue_name].discard(host)
            self._moved(host, host.servers, gone=True)
            self._placed = {a: where for a, where in self._placed.items() if where != name}

    def place(self, request: PlacementRequest, default_queue: str, now: float, *, keep: bool = True
              ) -> tuple[Placement, ...]:
        """One placement a server, in order; those for whom there is no room at the end have no host. keep False: only
        looked at, nothing is taken. Raises NoValidHost if fewer than min_count find a place, BadRequest."""
        for server_id in request.server_ids:
            self.withdraw(server_id)
        queue = self._queues.get(request.queue_name or default_queue, self._nobody)
        search = Search(request, self._filters, self._sign, self.where)
        placed: list[Placement] = []
        refused: NoValidHost | None = None
        for server_id in request.server_ids:
            if not (found := self._find(search, queue)):
                refused = self._refusal(search, queue)
                break
            placed.append(self._take(search, found, server_id, now))
        if not keep or (refused and len(placed) < (request.min_count or len(request.server_ids))):
            for p in placed:
                self.release(p.allocation)
        if refused is None:
            return tuple(placed)
        if keep and len(placed) < (request.min_count or len(request.server_ids)):
            raise refused
        return (*placed, *(Placement(server_id=s, host="", why=refused.message, details=refused.details)
                           for s in request.server_ids[len(placed):]))

    def release(self, allocation: str) -> None:
        """What an allocation took is free again; unknown ones are ignored."""
        host = self._hosts.get(self._placed.pop(allocation, ""))
        if host is not None:
            before = host.servers
            if host.give_back(allocation):
                self._queues[host.queue_name].moved(host)
                self._moved(host, before)

    def _find(self, search: Search, queue: HostQueue) -> list[Host]:
        """FLOW A7: the hosts asked for; else A8, A10: the queue's walk."""
        if search.only is None:
            return search.find(queue, self._best)
        hosts = [h for name in search.only if (h := self._hosts.get(name))]
        if search.request.host is not None:
            return search.among(hosts, 0)
        hosts = queue.named(h.name for h in hosts)
        return search.among(hosts, len(queue) - len(hosts))

    def _take(self, search: Search, found: Sequence[Host], server_id: str, now: float) -> Placement:
        first = found[0]
        equals = [h for h in found[:self._best] if search.penalty[h.name] == search.penalty[first.name]]
        host = first if len(equals) == 1 else self._chance.choice(equals)
        request = search.request
        directory = host.directory(request.amounts, self._sign) or ""
        amounts = request.amounts if directory == request.amounts.disk else msgspec.structs.replace(
            request.amounts, disk=directory)
        allocation = str(uuid4())
        self._count(host.name, allocation, Claim(server_id, amounts, now + PENDING_SECONDS))
        search.placed(host)
        why = explain(search.reasons, len(found)) if search.reasons else f"the best of {len(found)} hosts looked at"
        return Placement(server_id=server_id, host=host.name, allocation=allocation, limits=host.limits_in(directory),
                         selected_dir=directory, why=why)

    def _refusal(self, search: Search, queue: HostQueue) -> NoValidHost:
        """The counted reasons, and the nearest miss: by name for administrators only."""
        wanted = search.request.host
        if wanted is not None and wanted not in self._hosts:
            return NoValidHost(f"No valid host was found. There is no host {wanted}.")
        name, lack = search.nearest(self._queues[self._hosts[wanted].queue_name] if wanted else queue)
        said = f"No valid host was found. {explain(search.reasons)}"
        return NoValidHost(f"{said}; the nearest {lack}" if name else said, details=f"{name} {lack}" if name else "",
                           reasons=dict(search.reasons))

    def withdraw(self, server_id: str) -> None:
        """Placements that neither the database nor a report has shown lead to nothing: their room is free, and the
        server does not stand in its own way."""
        for name in tuple(self.where(server_id)):
            for allocation in self._hosts[name].uncommitted(server_id):
                self.release(allocation)

    def _count(self, name: str, allocation: str, claim: Claim) -> None:
        if (host := self._hosts.get(name)) is not None:
            host.take(allocation, claim)
            self._placed[allocation] = name
            self._where.setdefault(claim.server_id, set()).add(name)
            self._queues[host.queue_name].moved(host)

    def _queue(self, name: str) -> HostQueue:
        if name not in self._queues:
            self._queues[name] = HostQueue(self._driver)
        return self._queues[name]

    def _moved(self, host: Host, before: set[str], *, gone: bool = False) -> None:
        """Where servers are, after a host's news."""
        now = set[str]() if gone else host.servers
        for server in now - before:
            self._where.setdefault(server, set()).add(host.name)
        for server in before - now:
            if (hosts := self._where.get(server)) is not None:
                hosts.discard(host.name)
                if not hosts:
                    del self._where[server]
