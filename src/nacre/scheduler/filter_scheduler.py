"""Choosing hosts: every host there is, in its queue, and the one function that places servers on them.

Synchronous and in memory: between two awaits of the process a whole request is placed, so requests never see each
other half done.
"""

import random
from collections.abc import Iterable, Sequence

import msgspec

from nacre.base.errors import NoValidHost
from nacre.scheduler.contract import Amounts, HostReport, Placement, PlacementRequest
from nacre.scheduler.filters import ALL
from nacre.scheduler.host_queue import HostQueue
from nacre.scheduler.hosts import Host, Kind
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
        self._where: dict[str, str] = {}
        self._nobody = HostQueue(driver)
        if unknown := set(self._filters) - set(ALL):
            raise KeyError(f"no such filters: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")

    def host(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def hear(self, report: HostReport, now: float) -> None:
        """A report of a host that is known (`add`). now: seconds, of a clock that does not go back."""
        host = self._hosts[report.host]
        before, queue = host.servers, self._queues[host.queue_name]
        if report.queue_name != host.queue_name:
            queue.discard(host)
            host.hear(report, now)
            self._queue(host.queue_name).add(host)
        else:
            host.hear(report, now)
            queue.moved(host)
        self._moved(host, before)

    def add(self, report: HostReport, kind: Kind, out: str | None, servers: Iterable[str] = ()) -> None:
        """A new host. servers: those on it by the database, until it reports itself."""
        host = self._hosts[report.host] = Host(report, kind, out)
        before = set[str]()
        host.servers |= set(servers)
        self._queue(host.queue_name).add(host)
        self._moved(host, before)

    def change(self, name: str, kind: Kind, out: str | None) -> None:
        """What an operator or time changed of a host: its kind (zone, aggregates), and why it takes no servers."""
        host = self._hosts[name]
        queue = self._queues[host.queue_name]
        if host.kind is not kind:
            host.kind = kind
            queue.set_kind(host)
        queue.set_out(host, out)

    def remove(self, name: str) -> None:
        """The host is gone; unknown ones are ignored."""
        if (host := self._hosts.pop(name, None)) is not None:
            self._queues[host.queue_name].discard(host)
            self._where = {server: where for server, where in self._where.items() if where != name}

    def place(self, request: PlacementRequest, default_queue: str, now: float, *, keep: bool = True
              ) -> tuple[Placement, ...]:
        """One placement a server, in order; those for whom there is no room at the end have no host. keep False: only
        looked at, nothing is taken. Raises NoValidHost if fewer than min_count find a place, BadRequest."""
        for server_id in request.server_ids:
            self._forget(server_id)
        queue = self._queues.get(request.queue_name or default_queue, self._nobody)
        search = Search(request, self._filters, self._sign, self._where.get)
        placed: list[Placement] = []
        refused: NoValidHost | None = None
        for server_id in request.server_ids:
            if not (found := self._find(search, queue)):
                refused = self._refusal(search, queue)
                break
            placed.append(self._take(search, found, server_id, now))
        if not keep or (refused and len(placed) < (request.min_count or len(request.server_ids))):
            for p in placed:
                self.release(p.host, p.server_id, msgspec.structs.replace(request.amounts, disk=p.selected_dir))
        if refused is None:
            return tuple(placed)
        if keep and len(placed) < (request.min_count or len(request.server_ids)):
            raise refused
        return (*placed, *(Placement(server_id=s, host="", why=refused.message, details=refused.details)
                           for s in request.server_ids[len(placed):]))

    def release(self, name: str, server_id: str, amounts: Amounts) -> None:
        """What a placement took is free again; unknown hosts are ignored."""
        if (host := self._hosts.get(name)) is not None:
            host.give_back(server_id, amounts)
            self._queues[host.queue_name].moved(host)
            if self._where.get(server_id) == name:
                del self._where[server_id]

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
        host.take(server_id, amounts, now)
        self._queues[host.queue_name].moved(host)
        self._where[server_id] = host.name
        search.placed(host)
        why = explain(search.reasons, len(found)) if search.reasons else f"the best of {len(found)} hosts looked at"
        return Placement(server_id=server_id, host=host.name, limits=host.limits_in(directory),
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

    def _forget(self, server_id: str) -> None:
        """A placement that led to nothing, as its story was begun anew: the server must not stand in its own way."""
        host = self._hosts.get(self._where.get(server_id, ""))
        if host is not None and host.forget(server_id):
            self._queues[host.queue_name].moved(host)
            del self._where[server_id]

    def _queue(self, name: str) -> HostQueue:
        if name not in self._queues:
            self._queues[name] = HostQueue(self._driver)
        return self._queues[name]

    def _moved(self, host: Host, before: set[str]) -> None:
        """Where servers are, after a host's report."""
        for server in host.servers - before:
            self._where[server] = host.name
        for server in before - host.servers:
            if self._where.get(server) == host.name:
                del self._where[server]
