"""One request's search of a host queue: a short walk first, and if that does not find enough, whole columns.

Pure: it changes nothing. Why hosts were passed over is counted in the same pass.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nacre.scheduler.contract import PlacementRequest
from nacre.scheduler.filters import HOST_FILTERS, KIND_FILTERS, HostFilter, KindFilter
from nacre.scheduler.host_queue import HostQueue, Mask, Rows
from nacre.scheduler.hosts import DISK, MEMORY, SHARES, VCPUS, Host, Kind, needs
from nacre.scheduler.name_match import NamePattern
from nacre.scheduler.query import compile_query
from nacre.scheduler.reasons import LACK, amount, near_miss, of_one

#: So many hosts are looked at one by one before all are asked at once.
LOOK = 48
#: So many of the best are tried with a pattern before it is tried with all names.
NAMES_FIRST = 256

_NO_MATCH, _NO_QUERY = "do not match scheduler_host_match", "do not fit the query"


class Search:
    """A request, prepared once for all its servers. where: finds a server's hosts."""

    def __init__(self, request: PlacementRequest, filters: Iterable[str], sign: int,
                 where: Callable[[str], Iterable[str]]):
        self.request, self.sign = request, sign
        self.need = needs(request.amounts)
        self._kind_filters: list[KindFilter] = [KIND_FILTERS[f] for f in filters if f in KIND_FILTERS]
        self._host_filters: list[HostFilter] = [HOST_FILTERS[f] for f in filters if f in HOST_FILTERS]
        self._verdicts: dict[int, str | None] = {}
        self._pattern = NamePattern(request.host_match) if request.host_match is not None else None
        self._query = compile_query(request.query) if request.query is not None else None
        self._lacks = tuple(f"lack {amount(n, w)}" if w > 0 else LACK[n].format("any") for n, w in enumerate(self.need))
        #: Hosts that are out of question, with the reason; the only ones in question; how unwelcome a host is.
        self.shun: dict[str, str] = dict.fromkeys(request.ignore_hosts, "were tried already")
        self.only: set[str] | None = None
        self.only_reason = ""
        self.penalty: Counter[str] = Counter()
        self.members: Counter[str] = Counter()
        self._asked_only: set[str] | None = None
        self.reasons: Counter[str] = Counter()
        self._wishes(where)

    def placed(self, host: Host) -> None:
        """A server of the request went there: what that means for the next one."""
        if self.request.spread:
            self.shun[host.name] = "have a server of this request"
        if self.request.group is not None:
            self.members[host.name] += 1
            self._group_again()

    def find(self, queue: HostQueue, wanted: int) -> list[Host]:
        """Up to `wanted` hosts, best first. If none, `reasons` has counted every host of the queue."""
        self.reasons = Counter()
        favoured = [h for h in queue.named(self.penalty) if self.penalty[h.name] < 0 and not h.out]
        if fitting := [h for h in favoured if not self.refusal(h)]:
            return self._sorted(fitting)
        wanted += len(self.penalty)  # or the unwelcome would be all that is found
        if self._pattern and (rows := queue.names.known(self._pattern)) is not None and len(rows) * 16 < queue.size:
            return self._sorted(self._scan(queue, wanted, rows))
        if queue.spent and -np.inf in (self.need[MEMORY], self.need[VCPUS]):  # spent hosts will do, and do not walk
            return self._sorted(self._scan(queue, wanted, None))
        found, looked, driver = list[Host](), 0, queue.driver
        for host in queue.walk(self.need[driver], self.sign):
            if looked == LOOK:
                enough = any(not self.penalty[h.name] for h in found)
                return self._sorted(found if enough else self._scan(queue, wanted, None))
            looked += 1
            if why := self.refusal(host):
                self.reasons[why] += 1
                continue
            found.append(host)
            if len(found) >= wanted:
                return self._sorted(found)
        if not found and queue.spent:  # to be counted with what they lack
            return self._sorted(self._scan(queue, wanted, None))
        if not found:
            self.reasons[self._lacks[driver]] += queue.below(self.need[driver])
            self.reasons += queue.out
        return self._sorted(found)

    def among(self, hosts: Sequence[Host], others: int) -> list[Host]:
        """Those of a few hosts that fit, best first. others: how many hosts are not among them."""
        self.reasons = Counter({self.only_reason: others} if others > 0 else {})
        found = []
        for host in hosts:
            if why := host.out or self.refusal(host):
                self.reasons[why] += 1
            else:
                found.append(host)
        return self._sorted(sorted(found, key=lambda h: h.entry[:2], reverse=self.sign < 0))

    def refusal(self, host: Host) -> str | None:
        """Why a host may not have a server of the request."""
        if why := self.shun.get(host.name) or self.verdict(host.kind):
            return why
        for n, (has, wanted) in enumerate(zip(host.free, self.need, strict=True)):
            if has < wanted:
                return self._lacks[n]
        if host.directories and host.directory(self.request.amounts, self.sign) is None:
            return f"lack one directory with {amount(DISK, self.need[DISK])} and {amount(SHARES, self.need[SHARES])}" \
                if self.request.amounts.disk_shares else "lack room in the directory asked for"
        if self.request.amounts.disk and not host.directories:
            return "do not have the directory asked for"
        if self._pattern is not None and not self._pattern.found_in(host.name):
            return _NO_MATCH
        if self._query is not None and not self._query(lambda name: _fact(host, name)):
            return _NO_QUERY
        return next((why for f in self._host_filters if (why := f(self.request, host))), None)

    def verdict(self, kind: Kind) -> str | None:
        """Why no host of a kind may have a server of the request."""
        try:
            return self._verdicts[kind.number]
        except KeyError:
            why = next((why for f in self._kind_filters if (why := f(self.request, kind))), None)
            self._verdicts[kind.number] = why
            return why

    def nearest(self, queue: HostQueue) -> tuple[str, str]:
        """After a refusal: the host that was nearest, and what it lacks. Empty: there is none such."""
        rows = self._in_question(queue)
        if not len(rows):
            ready = next((h for h in queue.hosts if h is not None and h.out and not self.refusal(h)), None)
            return (ready.name, f"would fit, but {of_one(ready.out or '')}") if ready else ("", "")
        short = np.zeros(len(rows))
        for n, wanted in enumerate(self.need):
            if wanted > -np.inf:
                np.maximum(short, (wanted - queue.free[n, rows]) / max(wanted, 1.0), out=short)
        host = queue.hosts[rows[int(short.argmin())]]
        return (host.name, near_miss(host.free, self.need)) if host is not None and short.min() > 0 else ("", "")

    def _in_question(self, queue: HostQueue) -> Rows:
        """The hosts that only lack resources."""
        if self.only is not None:
            return np.array([h.row for h in queue.named(self.only) if not h.out and not self.shun.get(h.name) and
                             not self.verdict(h.kind)], dtype=np.intp)
        kept, self.reasons = self.reasons, Counter()
        rows, kinds = np.arange(queue.size), queue.kinds[:queue.size]
        alive = self._strike_kinds(queue, kinds, self._strike_named(queue, rows, kinds >= 0))
        if self._pattern is not None:
            alive = alive & np.isin(rows, queue.names.rows(self._pattern))
        self.reasons = kept
        return rows[alive]

    # --- what the wish says of single hosts --------------------------------------------------------------------

    def _wishes(self, where: Callable[[str], Iterable[str]]) -> None:
        r = self.request
        away = {host for s in r.different_host for host in where(s)}
        if r.try_different_host:
            self.penalty.update(away)
        else:
            self.shun |= dict.fromkeys(away, "run a server to stay away from")
        if r.host is not None:
            self.only, self.only_reason = {r.host}, "are not the host asked for"
        if r.same_host:
            together = {host for s in r.same_host for host in where(s)}
            self.only = together if self.only is None else self.only & together
            self.only_reason = "do not run the server to be with"
        if r.group is not None:
            others = set(r.group.members) - set(r.server_ids)
            self.members.update(host for s in others for host in where(s))
            self._asked_only = self.only
            self._group_again()

    def _group_again(self) -> None:
        """The group's wish, from where its members are now."""
        group = self.request.group
        if group is None or not self.members:
            return
        if group.policy == "anti-affinity":
            full = [host for host, count in self.members.items() if count >= group.max_per_host]
            self.shun |= dict.fromkeys(full, "have a server of the group")
        elif group.policy == "affinity":
            there = set(self.members)
            self.only = there if self._asked_only is None else there & self._asked_only
            self.only_reason = "do not run the group's servers"
        else:
            sign = 1 if group.policy == "soft-anti-affinity" else -1
            self.penalty = Counter({host: sign * count for host, count in self.members.items()})

    def _sorted(self, found: list[Host]) -> list[Host]:
        """The most welcome first; else as they were found."""
        return sorted(found, key=lambda h: self.penalty[h.name]) if self.penalty else found

    # --- all hosts at once -------------------------------------------------------------------------------------

    def _scan(self, queue: HostQueue, wanted: int, among: Rows | None) -> list[Host]:
        """As the walk, over all hosts, or over these rows. Counts every host that does not fit."""
        self.reasons = Counter()
        rows = np.arange(queue.size) if among is None else among
        free, kinds = (queue.free[:, :queue.size], queue.kinds[:queue.size]) if among is None else (
            queue.free[:, rows], queue.kinds[rows])
        alive: Mask = kinds >= 0
        resources = sorted((n for n, w in enumerate(self.need) if w > -np.inf), key=lambda n: n != queue.driver)
        for n in resources[:1]:
            alive = self._strike(alive, free[n] < self.need[n], self._lacks[n])
        alive = self._strike_kinds(queue, kinds, self._strike_named(queue, rows, alive))
        for n in resources[1:]:
            alive = self._strike(alive, free[n] < self.need[n], self._lacks[n])
        left = rows[alive]
        if self._pattern is not None and len(left):
            first = [h for h in queue.ordered(left, self.sign, NAMES_FIRST) if self._pattern.found_in(h.name)]
            if self._query is None and (few := self._exact(first[:wanted])):
                return few
            matching = left[np.isin(left, queue.names.rows(self._pattern), assume_unique=True)]
            self.reasons[_NO_MATCH] += len(left) - len(matching)
            left = matching
        if self._query is not None and len(left):
            hosts = [h for row in left if (h := queue.hosts[row]) is not None]
            fits = np.broadcast_to(self._query(lambda name: np.array([_fact(h, name) for h in hosts])), len(left))
            self.reasons[_NO_QUERY] += int(len(left) - fits.sum())
            left = left[fits]
        found = self._exact(queue.ordered(left, self.sign, wanted)) if len(left) else []
        if not found and len(left) > wanted:
            found = self._exact(queue.ordered(left, self.sign, len(left)))
        if not found and among is not None:
            self.reasons.update(h.out for row in rows if (h := queue.hosts[row]) is not None and h.out)
            self.reasons[_NO_MATCH] += len(queue) - len(rows)
        elif not found:
            self.reasons += queue.out
        return found

    def _exact(self, hosts: list[Host]) -> list[Host]:
        """What columns cannot say: directories, filters of single hosts."""
        if not self._host_filters and not self.request.amounts.disk and not any(h.directories for h in hosts):
            return hosts
        found, whys = [], Counter[str]()
        for host in hosts:
            if why := self.refusal(host):
                whys[why] += 1
            else:
                found.append(host)
        if not found:
            self.reasons += whys
        return found

    def _strike(self, alive: Mask, bad: Mask, reason: str) -> Mask:
        hit = alive & bad
        if count := int(np.count_nonzero(hit)):
            self.reasons[reason] += count
            return alive ^ hit
        return alive

    def _strike_named(self, queue: HostQueue, rows: Rows, alive: Mask) -> Mask:
        for reason in dict.fromkeys(self.shun.values()):
            named = [h.row for h in queue.named(n for n, why in self.shun.items() if why == reason)]
            if named:
                alive = self._strike(alive, np.isin(rows, named), reason)
        return alive

    def _strike_kinds(self, queue: HostQueue, kinds: NDArray[np.int32], alive: Mask) -> Mask:
        codes: dict[str, int] = {}
        table = np.zeros(max(queue.seen, default=0) + 1, dtype=np.int32)
        for number, kind in queue.seen.items():
            if why := self.verdict(kind):
                table[number] = codes.setdefault(why, len(codes) + 1)
        verdicts = table[kinds] if codes else kinds
        for why, code in codes.items():
            alive = self._strike(alive, verdicts == code, why)
        return alive


def _fact(host: Host, name: str) -> Any:
    """What a `query` may ask of a host (`query.VARIABLES`)."""
    r, free = host.report, host.free
    if name in ("host", "hypervisor_hostname"):
        return host.name
    if name == "free_ram_mb":
        return free[MEMORY]
    if name == "free_disk_mb":
        return free[DISK]
    if name == "num_instances":
        return len(host.servers)
    totals = {"total_usable_ram_mb": r.memory_mb, "total_usable_disk_gb": r.disk_gb, "vcpus_total": r.vcpus,
              "vcpus_used": host.limits.vcpus - free[VCPUS]}
    return totals[name] if name in totals else getattr(r, name)
