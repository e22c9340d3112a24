"""Choosing hosts: pure, over queues in memory. Reasons are counted in the same pass that looks for room."""

import random
from collections import Counter
from collections.abc import Callable, Iterable

import re2

from nacre.base.errors import BadRequest, NoValidHost
from nacre.scheduler.contract import Placement, PlacementRequest
from nacre.scheduler.filters import FILTERS, Filter
from nacre.scheduler.host_queue import HostQueue
from nacre.scheduler.hosts import Host

MAX_PATTERN = 255


class FilterScheduler:
    """Places servers on the hosts of its queues and keeps their free amounts up to date.

    driver: memory, cpu or disk first; sign: +1 packs, -1 spreads; best: the choice is random among so many (1: the
    best); filters: names out of `FILTERS`, in order.
    """

    def __init__(self, driver: str = "memory", sign: int = -1, best: int = 3, *,
                 filters: Iterable[str] = tuple(FILTERS), chance: random.Random | None = None):
        self.driver, self.sign, self.best = driver, sign, best
        self._filters: list[Filter] = [FILTERS[name] for name in filters]
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._queues: dict[str, HostQueue] = {}
        self._hosts: dict[str, Host] = {}

    def rebuild(self, hosts: Iterable[Host]) -> None:
        """Start anew from these hosts (FLOW A6)."""
        self._hosts = {h.name: h for h in hosts}
        names = {h.queue_name for h in self._hosts.values()}
        self._queues = {
            n: HostQueue((h for h in self._hosts.values() if h.queue_name == n), self.driver) for n in names}

    def place(self, request: PlacementRequest, default_queue: str) -> tuple[Placement, ...]:
        """One placement a server, all or none. Raises NoValidHost with the counted reasons, BadRequest."""
        placed: list[tuple[Host, Placement]] = []
        used: set[str] = set()
        try:
            for server_id in request.server_ids:
                fitting, reasons = self._fitting(request, default_queue, used)
                if not fitting:
                    raise NoValidHost(explain(reasons))
                first = fitting[: self.best]
                host = self._chance.choice(first)
                others = [h.name for h in fitting if h is not host][: request.alternates]
                self._move(host, request, server_id)
                placed.append((host, Placement(
                    server_id=server_id, host=host.name, limits=host.limits, alternates=tuple(others),
                    why=f"{explain(reasons)}; chosen among {len(first)}")))
                if request.spread:
                    used.add(host.name)
        except NoValidHost:
            for host, placement in placed:
                self.release(host.name, placement.server_id, request)
            raise
        return tuple(p for _, p in placed)

    def release(self, name: str, server_id: str, request: PlacementRequest) -> None:
        """What a placement took is free again."""
        self.give_back(name, (request.memory_mb, request.vcpus, request.disk_mb))
        if host := self._hosts.get(name):
            host.servers.discard(server_id)

    def give_back(self, name: str, amounts: tuple[int, int, int]) -> None:
        """memory MB, vcpus and disk MB are free again on a host; unknown hosts are ignored."""
        if not (host := self._hosts.get(name)):
            return
        queue = self._queues[host.queue_name]
        queue.remove(host)
        host.free_memory_mb += amounts[0]
        host.free_vcpus += amounts[1]
        host.free_disk_mb += amounts[2]
        queue.add(host)

    def _move(self, host: Host, request: PlacementRequest, server_id: str) -> None:
        queue = self._queues[host.queue_name]
        queue.remove(host)
        host.take(request, server_id)
        queue.add(host)

    def _fitting(self, request: PlacementRequest, default_queue: str, used: set[str]
                 ) -> tuple[list[Host], Counter[str]]:
        """Enough fitting hosts, best first, and what the others that were looked at lack."""
        reasons: Counter[str] = Counter()
        wanted = self.best + request.alternates
        fitting: list[Host] = []
        shunned: list[Host] = []
        matches = _matcher(request.host_match)
        for host in self._candidates(request, default_queue, reasons):
            if not matches(host.name):
                reasons["do not match scheduler_host_match"] += 1
            elif host.name in used:
                reasons["have a server of this request"] += 1
            elif reason := next((r for f in self._filters if (r := f(request, host))), None):
                reasons[reason] += 1
            elif request.try_different_host and host.servers.intersection(request.different_host):
                shunned.append(host)
            else:
                fitting.append(host)
                if len(fitting) == wanted:
                    break
        reasons["fit"] = len(fitting or shunned)
        return (fitting or shunned)[:wanted], reasons

    def _candidates(self, request: PlacementRequest, default_queue: str, reasons: Counter[str]) -> Iterable[Host]:
        """Whom to look at: the one host asked for (FLOW A7), else the queue's walk (A8, A10)."""
        if request.host is not None:
            return [h for h in (self._hosts.get(request.host),) if h]
        queue = self._queues.get(request.queue_name or default_queue)
        if queue is None:
            return []
        below, lack = queue.lacking(request)
        if below:
            reasons[lack] += below
        return queue.walk(request, self.sign)


def _matcher(pattern: str | None) -> Callable[[str], object]:
    """Whether a host's name contains a match of the user's pattern; re2, so in linear time. Raises BadRequest."""
    if pattern is None:
        return lambda name: True
    if len(pattern) > MAX_PATTERN:
        raise BadRequest(f"scheduler_host_match is longer than {MAX_PATTERN} characters.", field="scheduler_host_match")
    try:
        search: Callable[[str], object] = re2.compile(pattern).search
    except re2.error as error:
        raise BadRequest(f"scheduler_host_match is no regular expression: {error}",
                         field="scheduler_host_match") from None
    return search


def explain(reasons: Counter[str]) -> str:
    """"0 of 40 hosts fit: 31 lack 2048 MB of memory, 9 are disabled"."""
    fit = reasons.get("fit", 0)
    others = [(n, why) for why, n in reasons.most_common() if why != "fit" and n]
    total = fit + sum(n for n, _ in others)
    if not total:
        return "there are no hosts in the queue asked for"
    words = f"{fit} of {total} hosts looked at fit" if fit else f"0 of {total} hosts fit"
    return words + (": " + ", ".join(f"{n} {why}" for n, why in others) if others else "")
